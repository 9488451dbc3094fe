"""The gate over real sandboxes: what it admits, what it refuses and why, and going on after an interruption."""

import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from turnwise.errors import InputError, SandboxError, StoreError, TaskError
from turnwise.pipeline.recipe import SandboxTable
from turnwise.pipeline.validation import validate_tasks
from turnwise.store.lock import lock_run
from turnwise.tasks import Built
from turnwise.tasks.verdicts import Fault, read_verdicts
from turnwise.types import Mount, TestRun

from ..conftest import BUGGY, FIXED, HIDDEN_TEST, KEPT_TEST, git

pytestmark = pytest.mark.slow

KEPT = "tests/test_calc.py::test_double"


class Made:
    """The small world's environment for every task, counted; `trouble` may raise instead."""

    def __init__(self, spec, trouble=lambda task: None):
        self.spec, self.trouble, self.asked, self.stopped = spec, trouble, Counter(), False

    async def build(self, task):
        self.asked[task.instance_id] += 1
        self.trouble(task)
        return Built(1.5, "/usr", "3.11.2", ())

    async def prepare(self, task):
        return self.spec

    def stop(self):
        self.stopped = True


class Gate:
    def __init__(self, world, folder):
        self.world, self.out, self.made, self.told = world, folder / "verdicts.jsonl", Made(world.spec), []

    def task(self, name="calc", **changes):
        return replace(self.world.task, instance_id=f"small__{name}-1", **changes)

    def check(self, *tasks, repeats=1, workers=1, **settings):
        settings = SandboxTable(**{"retries": 0, **settings})
        tell = lambda verdict: self.told.append(verdict.instance_id)  # noqa: E731
        return validate_tasks(
            tasks, self.out, sandbox=settings, repeats=repeats, workers=workers, tell=tell, environments=self.made
        )

    def with_root(self, tmp_path, change):
        """Sandboxes of a changed copy of the repository."""
        root = tmp_path / "root"
        shutil.copytree(self.world.spec.root, root)
        change(root)
        self.made.spec = replace(self.world.spec, root=root)


@pytest.fixture
def gate(small_world, tmp_path):
    return Gate(small_world, tmp_path)


def test_a_sound_task_is_admitted(gate):
    (verdict,) = gate.check(gate.task(), repeats=2)
    (line,) = gate.out.read_text().splitlines()
    row = json.loads(line)
    assert row.pop("test_s") > 0
    assert row == {
        "instance_id": "small__calc-1",
        "admitted": True,
        "reason": None,
        "fault": None,
        "gold": True,
        "empty": True,
        "flaky": [],
        "network": False,
        "leaks": [],
        "variants": 4,
        "build_s": 1.5,
    }
    assert read_verdicts(gate.out) == {"small__calc-1": verdict}
    assert gate.made.stopped


def test_what_is_wrong_with_the_patches_is_told(gate):
    wrong = gate.world.diff({"calc.py": FIXED.replace("a + b", "a * b")})
    verdicts = gate.check(
        gate.task("gold", patch=wrong),
        gate.task("torn", patch=wrong.replace("a - b", "nowhere")),
        gate.task("idle", fail_to_pass=(KEPT,), pass_to_pass=()),
        gate.task("broken", pass_to_pass=("tests/test_calc.py::test_absent",)),
        gate.task("hidden", test_patch=gate.world.task.test_patch.replace("import calc", "import cold")),
    )
    gold, torn, idle, broken, hidden = verdicts
    assert (gold.fault, gold.gold, gold.empty) == (Fault.GOLD, False, True)
    assert "test_add failed" in gold.reason
    assert "patch_does_not_apply" in torn.reason
    assert (idle.fault, idle.gold, idle.empty) == (Fault.EMPTY, True, False)
    assert idle.reason == "without the fix the tests end resolved"
    assert "test_absent missing" in broken.reason
    assert (hidden.fault, hidden.gold) == (Fault.ROW, False)
    assert "field 'test_patch' does not apply" in hidden.reason


def test_tests_that_end_otherwise_without_the_fix_are_a_remark(gate):
    (verdict,) = gate.check(gate.task(pass_to_pass=(KEPT, *gate.world.task.fail_to_pass)))
    assert (verdict.admitted, verdict.empty) == (True, True)
    assert "tests/test_calc.py::test_add of PASS_TO_PASS does not pass" in verdict.reason


def test_a_test_that_disagrees_with_itself_is_flaky(gate):
    """Of twelve tests that toss a coin, all end the same in two runs once in 4096 times."""
    names = [f"test_chance_{n}" for n in range(12)]
    coins = "".join(f"\n\ndef {name}():\n    import os\n    assert os.urandom(1)[0] % 2\n" for name in names)
    ids = [f"tests/test_calc.py::{name}" for name in names]
    hidden = gate.world.diff({"tests/test_calc.py": f"import calc{HIDDEN_TEST}{KEPT_TEST}{coins}"})
    (verdict,) = gate.check(gate.task(test_patch=hidden, pass_to_pass=(KEPT, *ids)), repeats=2)
    assert verdict.flaky
    assert set(verdict.flaky) <= set(ids)
    assert (verdict.admitted, verdict.fault) == (False, Fault.FLAKY)


def test_a_task_that_needs_the_network_is_told_from_one_that_fails(gate):
    """A sandbox without network has the loopback device alone (after two lines of heading)."""
    online = "\n\ndef test_online():\n    assert len(open('/proc/net/dev').readlines()) > 3\n"
    hidden = {"tests/test_calc.py": f"import calc{HIDDEN_TEST}{KEPT_TEST}{online}"}
    task = gate.task(test_patch=gate.world.diff(hidden), pass_to_pass=("tests/test_calc.py::test_online",))
    (verdict,) = gate.check(task)
    assert (verdict.network, verdict.fault, verdict.gold) == (True, Fault.NETWORK, False)


def _a_later_commit(root):
    (root / "calc.py").write_text(FIXED)
    git(root, "commit", "-aqm", "Mend the sign")
    git(root, "reset", "-q", "--hard", "HEAD~1")


def _a_stash(root):
    (root / "calc.py").write_text(FIXED)
    git(root, "stash", "-q")


def _a_later_head(root):
    (root / "news").write_text("later\n")
    git(root, "add", "news")
    git(root, "commit", "-qm", "Later")


def _a_staged_fix(root):
    (root / "calc.py").write_text(FIXED)
    git(root, "add", "calc.py")
    git(root, "reset", "-q", "--hard")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_a_later_commit, ["is not of the base", "a reflog names commit"]),
        (_a_stash, ["refs/stash names commit", "is not of the base"]),
        (_a_later_head, ["is not of the base", "refs/heads/"]),
        (_a_staged_fix, ["is a file of the solution"]),
        (lambda root: git(root, "update-ref", "-m", "x", "refs/tags/v1", "HEAD"), []),
    ],
)
def test_a_repository_that_shows_the_future_leaks(gate, tmp_path, change, told):
    gate.with_root(tmp_path, change)
    (verdict,) = gate.check(gate.task())
    leaks = "; ".join(verdict.leaks)
    assert all(text in leaks for text in told), leaks
    assert verdict.fault is (Fault.LEAK if told else None)


@pytest.mark.parametrize("name", ["HEAD", "a-branch-upstream"])
def test_a_base_that_the_row_only_names_is_no_leak(gate, name):
    (verdict,) = gate.check(gate.task(base_commit=name))
    assert (verdict.admitted, verdict.leaks) == (True, ())


@pytest.mark.parametrize(("text", "leaks"), [(FIXED, True), (BUGGY, False), ("def add(a, b):\n    return 7\n", False)])
def test_an_installed_copy_leaks_if_it_has_the_fix(gate, tmp_path, text, leaks):
    (tmp_path / "calc.py").write_text(text)
    copy = Mount(tmp_path / "calc.py", "/opt/copies/calc.py")
    gate.made.spec = replace(gate.world.spec, mounts=(*gate.world.spec.mounts, copy))
    (verdict,) = gate.check(gate.task())
    assert verdict.leaks == (("/opt/copies/calc.py has the solution's calc.py",) if leaks else ())
    assert verdict.admitted is not leaks


def test_the_last_of_many_copies_is_looked_into(gate, tmp_path):
    """Their paths are more than a command may print."""
    copies = [tmp_path / "copies" / f"{number:03}{'x' * 200}" / "calc.py" for number in range(350)]
    for copy in copies:
        copy.parent.mkdir(parents=True)
        copy.write_text(BUGGY)
    found = subprocess.run(["find", tmp_path / "copies", "-type", "f"], check=True, capture_output=True, text=True)
    last = Path(found.stdout.splitlines()[-1])
    last.write_text(FIXED)
    mount = Mount(tmp_path / "copies", "/opt/copies")
    gate.made.spec = replace(gate.world.spec, mounts=(*gate.world.spec.mounts, mount))
    (verdict,) = gate.check(gate.task())
    assert verdict.leaks == (f"/opt/copies/{last.parent.name}/calc.py has the solution's calc.py",)
    assert verdict.fault is Fault.LEAK


def test_more_refs_than_a_command_may_print_are_told(gate, tmp_path):
    def many_refs(root):
        later = git(root, "commit-tree", "-p", "HEAD", "-m", "Later", "HEAD^{tree}").strip()
        packed = [f"{later} refs/heads/{number:03}{'x' * 200}\n" for number in range(300)]
        (root / ".git" / "packed-refs").write_text("".join(packed))

    gate.with_root(tmp_path, many_refs)
    (verdict,) = gate.check(gate.task())
    assert verdict.fault is Fault.LEAK
    assert sum("refs/heads/" in leak for leak in verdict.leaks) == 300


def test_a_failed_environment_is_refused_and_a_failed_machine_is_tried_again(gate):
    def trouble(task):
        if task.instance_id == "small__env-1":
            raise TaskError("no Python 3.2 is there")
        if task.instance_id == "small__disk-1":
            raise SandboxError("the disk is full")

    gate.made.trouble = trouble
    tasks = [gate.task(name) for name in ("env", "disk", "sound")]
    assert [verdict.fault for verdict in gate.check(*tasks, workers=3)] == [
        Fault.ENVIRONMENT,
        Fault.INFRASTRUCTURE,
        None,
    ]
    assert read_verdicts(gate.out)["small__disk-1"].reason == "the disk is full"
    gate.made.trouble = lambda task: None
    assert [verdict.admitted for verdict in gate.check(*tasks)] == [False, True, True]
    assert gate.made.asked == {"small__env-1": 1, "small__disk-1": 2, "small__sound-1": 1}
    assert len(gate.out.read_text().splitlines()) == 3


@pytest.mark.parametrize("backend", ["docker", "kubernetes"])
def test_an_engine_that_is_not_there_is_no_rows_fault(gate, monkeypatch, backend):
    for name in ("DOCKER_HOST", "KUBECONFIG"):
        monkeypatch.setenv(name, "unix:///nowhere")
    for _ in range(2):
        with pytest.raises(InputError, match=r"no Docker engine answers|kubeconfig"):
            gate.check(replace(gate.task(), instance_id="engine"), backend=backend, base_image="python:3.12")
        assert gate.out.read_text() == ""
    assert [verdict.admitted for verdict in gate.check(gate.task())] == [True]


def test_an_image_that_no_sandbox_can_be_made_of_is_its_rows_fault(gate, tmp_path):
    (tmp_path / "image").mkdir()
    gate.made.spec = replace(gate.world.spec, root=None, image=str(tmp_path / "image"))
    (verdict,) = gate.check(gate.task())
    assert verdict.fault is Fault.ROW
    assert verdict.reason.endswith("has no bash, which sandboxes need")


def test_an_error_that_nobody_foresaw_is_a_verdict_on_its_task(gate):
    odd, sound = gate.check(gate.task("odd", patch=None), gate.task("sound"))
    assert (odd.fault, odd.reason.split(":")[0], sound.admitted) == (Fault.ROW, "TypeError", True)


def test_an_interrupted_gate_goes_on_and_drops_a_torn_line(gate):
    def interrupt(task):
        if task.instance_id == "small__b-1":
            os.kill(os.getpid(), signal.SIGINT)

    gate.made.trouble = interrupt
    tasks = [gate.task("a"), gate.task("b")]
    with pytest.raises(KeyboardInterrupt):
        gate.check(*tasks)
    assert gate.told == ["small__a-1"]
    assert gate.made.stopped
    with gate.out.open("a") as file:
        file.write('{"instance_id": "small__b-1", "admi')

    gate.made.trouble = lambda task: None
    assert [verdict.admitted for verdict in gate.check(*tasks)] == [True, True]
    assert gate.told == ["small__a-1", "small__b-1"]
    assert [json.loads(line)["instance_id"] for line in gate.out.read_text().splitlines()] == gate.told


def test_what_is_no_verdicts_file_or_is_being_written_is_left_alone(gate):
    gate.out.write_text("my notes\n")
    with pytest.raises(TaskError, match=r"verdicts\.jsonl:1"):
        gate.check(gate.task())
    assert gate.out.read_text() == "my notes\n"
    gate.out.unlink()
    with lock_run(gate.out), pytest.raises(StoreError, match="another process"):
        gate.check(gate.task())


def test_a_parser_that_swebench_lacks_refuses_its_row_alone(gate):
    odd = gate.task("odd", test_run=TestRun("pytest -rA", "parse_log_nobody"))
    assert [verdict.fault for verdict in gate.check(odd, gate.task())] == [Fault.ROW, None]


def test_a_command_that_is_judged_by_its_log_alone_is_told(gate):
    shell = TestRun("sh -c 'python -m pytest -rA tests/test_calc.py'", "parse_log_pytest")
    plain, in_shell = gate.check(
        gate.task("plain", test_run=replace(shell, command="pytest -rA tests/test_calc.py")),
        gate.task("shell", test_run=shell),
    )
    assert (plain.admitted, plain.reason) == (True, None)
    assert (in_shell.admitted, in_shell.reason) == (True, "its test command is judged by its log alone")
