"""How verbs end: Ctrl-C with a sentence on what is left, and 1 while there is something that the machine failed."""

import json
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from turnwise.cli import main
from turnwise.cli.common import slug
from turnwise.tasks import write_tasks
from turnwise.tasks.cache import locked
from turnwise.types import Checkout, Installation, Task

from ..endpoint import completion, in_turn, serving
from ..tasks.mine.past import make_past

pytestmark = pytest.mark.slow

RUNNING = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture(scope="module")
def past(tmp_path_factory):
    """The repository acme/calc, whose own build finds the disk full."""
    folder = tmp_path_factory.mktemp("repos") / "acme__calc"
    return make_past(folder, {"setup.py": "print('much', file=open('/dev/full', 'w'), flush=True)\n"})


@pytest.fixture
def here(past, tmp_path, monkeypatch):
    """A folder to run verbs in, with two tasks of the repository, of which the first one cannot be built."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path / "cache"))
    write_rows(tmp_path, past, ("echo much > /dev/full", "true"))
    return tmp_path


def write_rows(folder, past, commands):
    """Tasks whose environments are made by one command each."""
    tasks = [
        Task(
            instance_id=f"acme__calc-{number}",
            repo="acme/calc",
            base_commit=past.commits["root"],
            patch="a patch",
            test_patch="",
            problem_statement="It is broken.",
            fail_to_pass=("tests/test_calc.py::test_zero",),
            pass_to_pass=(),
            environment=Checkout(Installation(python=RUNNING, install=(command,))),
        )
        for number, command in enumerate(commands)
    ]
    write_tasks(folder / "rows.jsonl", tasks)


@pytest.fixture
def said(here, capsys):
    """Run a verb; its exit code and the lines that it says on stderr."""

    def run(*arguments):
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        return leaving.value.code, capsys.readouterr().err.splitlines()

    return run


@pytest.fixture
def ended(said):
    """Run a verb; its exit code and the last line that it says on stderr."""

    def run(*arguments):
        code, lines = said(*arguments)
        return code, lines[-1]

    return run


def test_validate_ends_with_1_while_the_machine_failed_a_task(ended, past):
    given = ("--out", "v.jsonl", "--repos", past.folder.parent, "--select", "calc-0")
    told = "turnwise: the machine failed 1 of 1 tasks; the same command tries again"
    assert ended("tasks", "validate", "rows.jsonl", *given) == (1, told)


def test_mine_ends_with_1_while_the_machine_failed_a_candidate(ended, past):
    given = ("--repo", "acme/calc", "--ref", past.commits["half"], "--tries", 1)
    told = "turnwise: the machine failed 1 of 1 candidates; the same command tries again"
    assert ended("tasks", "mine", past.folder, "--out", "tasks.jsonl", *given) == (1, told)


def test_verify_ends_with_1_while_the_machine_failed_a_patch(ended, past, here):
    rows = [{"instance_id": "acme__calc-0", "model_patch": "diff"}, {"instance_id": "acme__calc-1"}]
    (here / "preds.json").write_text(json.dumps(rows))
    told = "turnwise: the machine failed 1 of 2 patches; the same command tries again"
    given = ("--tasks", "rows.jsonl", "--repos", past.folder.parent, "--set", "sandbox.retries=0")
    assert ended("verify", "preds.json", *given) == (1, told)


def test_verify_says_what_a_row_at_fault_is_at_fault_for(said, past, here):
    write_rows(here, past, ("echo no such thing >&2; false", "true"))
    rows = [{"instance_id": "acme__calc-0", "model_patch": "diff"}, {"instance_id": "acme__calc-1"}]
    (here / "preds.json").write_text(json.dumps(rows))
    code, lines = said("verify", "preds.json", "--tasks", "rows.jsonl", "--repos", past.folder.parent, "--out", "out")
    assert code == 1
    assert lines[-2].startswith("turnwise: 1 task_failure; predictions/evaluate/0/acme__calc-0/0: no environment for")
    assert "no such thing" in lines[-2]
    assert lines[-1] == "turnwise: the tasks of 1 of 2 patches are at fault (above)"
    report = json.loads((here / "out" / "logs" / "acme__calc-0" / "report.json").read_text())["acme__calc-0"]
    assert report["infra_failure_reason"] == "task_failure"
    assert "no such thing" in report["infra_failure_detail"]
    summary = json.loads((here / "out" / "unnamed.preds.json").read_text())
    assert "no such thing" in summary["failure_reasons"]["acme__calc-0"]


def test_eval_ends_with_1_where_a_task_was_not_scored(said, past, here):
    write_rows(here, past, ("echo no such thing >&2; false", "true"))
    with serving(in_turn(completion("I am done.\n\n```command\nsubmit\n```"))) as server:
        given = ("--endpoint", server.url, "--runs", "1", "--repos", past.folder.parent, "--run-dir", "scored")
        code, lines = said("eval", "--model", "m", "--tasks", "rows.jsonl", *given)
    assert code == 1
    assert "no such thing" in lines[-2]
    assert lines[-1].startswith("turnwise: only 1 of 2 tasks were scored")


def test_a_run_id_that_is_no_file_name_is_refused(ended, here):
    (here / "preds.json").write_text(json.dumps([{"instance_id": "acme__calc-1"}]))
    code, told = ended("verify", "preds.json", "--tasks", "rows.jsonl", "--run-id", "../r1")
    assert (code, told) == (
        1,
        "turnwise: --run-id '../r1': should be made of letters, digits, '_', '-' and '.', no '.' first",
    )
    assert not (here / "runs").exists()


def test_a_run_id_too_long_for_a_file_name_is_refused_before_any_work(ended, here):
    (here / "preds.json").write_text(json.dumps([{"instance_id": "acme__calc-1"}]))
    code, told = ended("verify", "preds.json", "--tasks", "rows.jsonl", "--run-id", "r" * 300)
    assert (code, told) == (1, "turnwise: --run-id: is 300 characters long, and should have 100 at most")
    assert not (here / "runs").exists()


def test_a_long_way_to_the_predictions_names_the_run_by_its_end(here):
    assert slug("/data/" + "deep/" * 60 + "preds") == "deep-" * 19 + "preds"


def interrupted(folder, arguments, is_at_work):
    """Run a verb in a process of its own and press Ctrl-C when it is at work; exit code, stderr. A minute at most."""
    command = [sys.executable, "-m", "turnwise.cli", *arguments]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as verb:
        while not is_at_work():
            assert verb.poll() is None, verb.communicate()
            time.sleep(0.05)
        verb.send_signal(signal.SIGINT)
        try:
            err = verb.communicate(timeout=60)[1]
        finally:
            verb.kill()
    return verb.returncode, err


def test_ctrl_c_ends_a_build_and_says_how_it_goes_on(here, past):
    write_rows(here, past, ("touch at-work; sleep 1234.5",))
    arguments = ("tasks", "build", "rows.jsonl", "--repos", str(past.folder.parent))
    code, err = interrupted(here, arguments, lambda: list(here.glob("cache/checkouts/.making*/root/at-work")))
    assert (code, err.splitlines()[-1]) == (130, "stopped; the same command goes on")


def test_ctrl_c_ends_what_predictions_are_graded_in(here, past):
    write_rows(here, past, ("touch at-work; sleep 1234.5",))
    (here / "preds.json").write_text(json.dumps([{"instance_id": "acme__calc-0", "model_patch": "diff"}]))
    arguments = ("verify", "preds.json", "--tasks", "rows.jsonl", "--repos", str(past.folder.parent))
    code, err = interrupted(here, arguments, lambda: list(here.glob("cache/checkouts/.making*/root/at-work")))
    assert (code, err.splitlines()[-1]) == (130, "stopped; the same command goes on with runs/verify-preds")


def test_ctrl_c_does_not_wait_for_what_another_process_builds(here):
    repositories = here / "cache" / "repositories"
    repositories.mkdir(parents=True)
    with locked(repositories / "acme__calc.git"):
        is_at_work = lambda: list(here.glob("cache/checkouts/.making*"))  # noqa: E731
        code, err = interrupted(here, ("tasks", "build", "rows.jsonl"), is_at_work)
    assert (code, err.splitlines()[-1]) == (130, "stopped; the same command goes on")


def test_ctrl_c_ends_the_making_of_tasks_and_says_what_there_is(here, monkeypatch):
    asked, leave = threading.Event(), threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.set()
            leave.wait(30)

        def log_message(self, format, *args):
            """Nothing on the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        threading.Timer(5, leave.set).start()
        code, err = interrupted(here, ("tasks", "make", "toolz", "--out", "made.jsonl"), asked.is_set)
        server.shutdown()
    assert (code, err.splitlines()[-1]) == (130, "stopped; made.jsonl holds the packages that were finished, if any")
