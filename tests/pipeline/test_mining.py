"""Mining over real sandboxes: what becomes of each commit, and going on after an interruption."""

import json
import os
import re
import signal
from collections import Counter

import pytest

from turnwise.errors import InputError, SandboxError, StoreError
from turnwise.pipeline.mining import Mining, mine_tasks, mining_steps
from turnwise.pipeline.recipe import SandboxTable
from turnwise.store.lock import lock_run
from turnwise.tasks import Built, read_tasks
from turnwise.tasks.checkout.repositories import find_history
from turnwise.tasks.checkout.root import check_out, settle
from turnwise.tasks.mine import Rules, find_candidates, open_history
from turnwise.tasks.verdicts import Fault, read_verdicts, require_gate
from turnwise.types import Mount, SandboxSpec, TestRun

from ..tasks.mine.past import make_past

pytestmark = pytest.mark.slow

ENV = {"PATH": "/opt/env/bin:/usr/bin:/bin", "PYTHONPATH": "/testbed", "PYTHONDONTWRITEBYTECODE": "1"}
SIGN, HALF = "acme__calc-7", "acme__calc-9"


class Made:
    """Real roots of the past's commits, with a Python that has pytest and nothing else; `trouble` may raise instead."""

    def __init__(self, folder, known, python):
        self.folder, self.known, self.python = folder, known, python
        self.asked, self.trouble = Counter(), lambda task: None

    async def build(self, task):
        self.asked[task.instance_id] += 1
        self.trouble(task)
        return Built(1.0, "/usr", "3.11.2", ())

    async def prepare(self, task):
        root = self.folder / task.base_commit
        if not root.exists():
            root.mkdir(parents=True)
            check_out(find_history(task, None, self.folder, known=self.known), task.base_commit, root)
            settle(root, task.base_commit)
        return SandboxSpec(root, mounts=(Mount(self.python, "/opt/env"),), env=ENV)

    def stop(self):
        pass


class Mine:
    def __init__(self, past, made, folder):
        self.out, self.gate, self.made, self.told = folder / "tasks.jsonl", folder / "tasks.gate.jsonl", made, []
        history, tip = open_history(past.folder, "HEAD")
        self.past, self.prospects = past, find_candidates(history, tip, "acme/calc", Rules())
        self.toss = self.prospects.candidates[0].task.instance_id

    def run(self, *names, limit=0, repeats=1, workers=1, test_command=""):
        """Mine these candidates (none: all); the verdicts."""
        chosen = [one for one in self.prospects.candidates if not names or one.task.instance_id in names]
        return mine_tasks(
            chosen,
            self.past.folder,
            self.out,
            self.gate,
            sandbox=SandboxTable(retries=0),
            options=Mining(repeats, workers, limit, test_command=test_command),
            tell=lambda mined: self.told.append(mined),
            environments=self.made,
        )


@pytest.fixture(scope="session")
def past(tmp_path_factory):
    return make_past(tmp_path_factory.mktemp("past") / "acme__calc")


@pytest.fixture
def mine(past, bare_python, tmp_path, tmp_path_factory):
    roots = tmp_path_factory.getbasetemp() / "mined-roots"
    return Mine(past, Made(roots, past.folder, bare_python), tmp_path)


def test_a_past_becomes_tasks_that_may_train(mine):
    verdicts = mine.run(repeats=2, workers=2)
    assert {name: (one.admitted, one.fault) for name, one in verdicts.items()} == {
        SIGN: (True, None),
        HALF: (True, None),
        mine.toss: (False, Fault.NO_FAILING_TEST),
    }
    sign, half = read_tasks(mine.out)
    assert (sign.instance_id, sign.meta["split"]) == (SIGN, "train")
    assert (half.instance_id, half.meta["split"]) == (HALF, "heldout")
    assert sign.fail_to_pass == ("tests/test_calc.py::test_sum",)
    assert sign.pass_to_pass == ("tests/test_calc.py::test_zero",)
    assert half.fail_to_pass == ("tests/test_calc.py::test_half",)
    assert sign.problem_statement.startswith("add gives a wrong sum\n")
    assert half.problem_statement.startswith("Fix halves of odd numbers\n")
    assert "    assert calc.halve(3) == 1.5" not in half.problem_statement
    assert "calc.halve(3)" in half.problem_statement
    assert "return a / 2" not in half.problem_statement
    require_gate([sign, half], str(mine.gate))
    steps = mining_steps(mine.prospects, verdicts)
    assert [(step.name, step.left, step.dropped) for step in steps[-4:]] == [
        ("tried", 3, ()),
        ("environment built", 3, ()),
        ("failing tests turned passing", 2, (mine.toss,)),
        ("admitted", 2, ()),
    ]
    toss = next(mined for mined in mine.told if mined.verdict.instance_id == mine.toss)
    assert len(toss.measured.unsteady) == 4
    assert "4 end differently from run to run" in toss.verdict.reason


def test_an_interrupted_mine_goes_on_and_tries_nothing_twice(mine):
    def interrupt(task):
        if task.instance_id == SIGN:
            os.kill(os.getpid(), signal.SIGINT)

    mine.made.trouble = interrupt
    with pytest.raises(KeyboardInterrupt):
        mine.run(HALF, SIGN)
    assert [task.instance_id for task in read_tasks(mine.out)] == [HALF]
    assert list(read_verdicts(mine.gate)) == [HALF]
    with mine.gate.open("a") as file:
        file.write('{"instance_id": "acme__calc-7", "adm')

    mine.made.trouble = lambda task: None
    assert [one.admitted for one in mine.run(HALF, SIGN).values()] == [True, True]
    assert mine.made.asked == {HALF: 1, SIGN: 2}
    assert [mined.verdict.instance_id for mined in mine.told] == [HALF, SIGN]
    assert [task.meta["split"] for task in read_tasks(mine.out)] == ["train", "heldout"]
    assert [json.loads(line)["instance_id"] for line in mine.gate.read_text().splitlines()] == [HALF, SIGN]


def test_enough_is_enough_until_more_is_asked_for(mine):
    assert list(mine.run(HALF, SIGN, limit=1)) == [HALF]
    assert list(mine.run(HALF, SIGN, limit=1)) == [HALF]
    assert mine.made.asked == {HALF: 1}
    mine.out.unlink()
    assert list(mine.run(HALF, limit=1)) == [HALF]
    assert mine.made.asked == {HALF: 2}


def test_a_failed_machine_is_no_verdict_and_stops_nobody(mine):
    def trouble(task):
        if task.instance_id == mine.toss:
            raise SandboxError("the disk is full")

    mine.made.trouble = trouble
    verdicts = mine.run(mine.toss, HALF, repeats=2)
    assert [one.fault for one in verdicts.values()] == [Fault.INFRASTRUCTURE, None]
    steps = mining_steps(mine.prospects, verdicts)
    assert [(step.name, step.left) for step in steps[-4:-2]] == [("tried", 1), ("environment built", 1)]
    mine.made.trouble = lambda task: None
    assert mine.run(mine.toss, HALF, repeats=2)[mine.toss].fault is Fault.NO_FAILING_TEST
    assert mine.made.asked == {mine.toss: 2, HALF: 1}


def test_files_that_another_process_writes_are_left_alone(mine):
    with lock_run(mine.gate), pytest.raises(StoreError, match="another process"):
        mine.run(HALF)


CHECK = """\
import pytest
import quarter


@pytest.mark.parametrize("number", [1, 2], ids=["one", "the two"])
def check_quarter(number):
    assert quarter.quarter(number) == number / 4
"""


@pytest.fixture
def configured(bare_python, tmp_path):
    """Of a repository that has pytest collect functions of another name."""
    settings = "[pytest]\npython_functions = check_*\n"
    past = make_past(
        tmp_path / "acme__calc", {"pytest.ini": settings, "quarter.py": "def quarter(a):\n    return a // 4\n"}
    )
    past.commit(
        "quarter", "Fix quarters (#31)", past.change("quarter.py", "//", "/") | {"tests/test_quarter.py": CHECK}
    )
    return Mine(past, Made(tmp_path / "roots", past.folder, bare_python), tmp_path)


def test_a_repositorys_own_test_command_reads_its_settings(configured):
    name = "acme__calc-31"
    assert configured.run(name)[name].fault is Fault.NO_FAILING_TEST
    configured.gate.unlink()
    verdict = configured.run(name, repeats=2, test_command="pytest -rA")[name]
    assert verdict.admitted, verdict.reason
    (task,) = read_tasks(configured.out)
    assert task.test_run == TestRun("pytest -rA tests/test_quarter.py", "parse_log_pytest")
    assert task.fail_to_pass == ("tests/test_quarter.py::check_quarter[one]",)
    assert "with number = 1\n\nShould give: number / 4\nGives: 0" in task.problem_statement


def test_why_no_test_ran_is_told(configured):
    name = "acme__calc-31"
    reason = configured.run(name, test_command="pytest -rA --dist=load")[name].reason
    assert re.search("with the fix none runs: .* error: unrecognized arguments: --dist=load", reason), reason


@pytest.mark.parametrize(
    ("command", "message"),
    [("tox -e py39", "one plain call of pytest"), ("cd tests && pytest -rA", "one plain call"), ("pytest -v", "-rA")],
)
def test_a_test_command_that_cannot_be_graded_is_refused(command, message):
    with pytest.raises(InputError, match=message):
        Mining(test_command=command)
