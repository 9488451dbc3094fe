"""How a row's own log parser grades a test log, by swebench's own functions."""

import importlib
import importlib.util
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from turnwise.errors import InputError, TaskError
from turnwise.rewards.record import Record
from turnwise.types import Task, TestRun

START, END, EXIT_CODE = ">>>>> Start Test Output", ">>>>> End Test Output", ">>>>> Test Exit Code"
_STATUS = {"passed": "PASSED", "xfailed": "XFAIL", "skipped": "SKIPPED", "failed": "FAILED", "error": "ERROR"}
_RANK = ["SKIPPED", "PASSED", "XFAIL", "FAILED", "ERROR"]
_OUTCOME = {"PASSED": "passed", "XFAIL": "xfailed", "SKIPPED": "skipped", "FAILED": "failed", "ERROR": "error"}


@dataclass(frozen=True)
class Grade:
    """How swebench grades one run. Outcomes by test id: "passed", "xfailed", "failed", "error", "skipped" or
    "missing".

    `found` is False where swebench finds no sound test output in the log. `satisfied` are the ids that it accepts.
    """

    resolved: bool
    found: bool
    outcomes: Mapping[str, str]
    satisfied: frozenset[str]


class Grader:
    """Grades runs of one task's tests.

    Raises at once InputError where swebench is not installed, TaskError where the row's parser or evaluation type is
    none of its.
    """

    def __init__(self, task: Task, run: TestRun) -> None:
        self._swebench = _import_swebench(task)
        self._task = task
        if run.log_parser not in self._swebench.PARSER_REGISTRY:
            raise TaskError(f"{task.instance_id}: log_parser: swebench has no parser {run.log_parser!r}")
        try:
            self._eval_type = self._swebench.EvalType(run.eval_type)
        except ValueError as error:
            raise TaskError(f"{task.instance_id}: eval_type: {error}") from error
        self._spec = self._swebench.TestSpec(
            instance_id=task.instance_id,
            image="",
            eval_script_list=[],
            repo=task.repo,
            version=task.version,
            FAIL_TO_PASS=list(task.fail_to_pass),
            PASS_TO_PASS=list(task.pass_to_pass),
            log_parser=run.log_parser,
            eval_type=run.eval_type,
        )

    def of_log(self, log: str) -> Grade:
        """The grade of a whole log, markers and exit code included: what swebench's `get_eval_report` says of it."""
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="replace", suffix=".txt") as file:
            file.write(log)
            file.flush()
            try:
                status, found = self._swebench.get_logs_eval(self._spec, file.name)
            except Exception:  # see `_parse`
                status, found = {}, False
        return self._grade(status, found)

    def outcomes_in(self, output: str) -> dict[str, str]:
        """How the tests ended that an output tells of, under the names that the row's parser gives them."""
        return {name: _OUTCOME[status] for name, status in self._parse(output).items()}

    def of_record(self, record: Record) -> Grade:
        """The grade of pytest's reports, under the names that the row's parser gives the tests.

        Where the parser gives several tests one name (a parametrized id cut at a space), the worst of them counts.
        """
        status: dict[str, str] = {}
        for node, outcome in record.outcomes.items():
            for name in self._parse(f"PASSED {node}"):
                status[name] = max(_STATUS[outcome], status.get(name, _STATUS[outcome]), key=_RANK.index)
        return self._grade(status, True)

    def _parse(self, text: str) -> dict[str, str]:
        """A parser raises whatever an odd line brings it to: Django's IndexError at a bare "ERROR:"."""
        try:
            status: dict[str, str] = self._swebench.PARSER_REGISTRY[self._spec.log_parser](text, self._spec)
        except Exception:
            return {}
        return status

    def _grade(self, status: dict[str, str], found: bool) -> Grade:
        ids = {"FAIL_TO_PASS": list(self._task.fail_to_pass), "PASS_TO_PASS": list(self._task.pass_to_pass)}
        report = self._swebench.get_eval_tests_report(status, ids, eval_type=self._eval_type)
        satisfied = frozenset(report["FAIL_TO_PASS"]["success"] + report["PASS_TO_PASS"]["success"])
        full = self._swebench.get_resolution_status(report) == self._swebench.ResolvedStatus.FULL.value
        outcomes = {test_id: self._outcome(test_id, status, satisfied) for kind in ids.values() for test_id in kind}
        return Grade(found and full, found, outcomes, satisfied if found else frozenset())

    def _outcome(self, test_id: str, status: Mapping[str, str], satisfied: Iterable[str]) -> str:
        if test_id in status:
            return _OUTCOME[status[test_id]]
        if self._swebench.test_passed(test_id, status):
            return "passed"
        return "passed" if test_id in satisfied else "missing"  # fail_only: what the log does not name has not failed


def whole_log(output: str, exit_code: int) -> str:
    """A test command's output under swebench's log contract.

    >>> whole_log("ok", 0).splitlines()[-1]
    '>>>>> Test Exit Code: 0'
    """
    return f"{START}\n{output}\n{END}\n{EXIT_CODE}: {exit_code}\n"


def require_graders(tasks: Iterable[Task]) -> None:
    """Raise InputError where one of the tasks is graded by swebench and that is not installed."""
    for task in tasks:
        if task.test_run is not None:
            _find_swebench(task)


def _find_swebench(task: Task) -> str:
    """The folder of the installed package."""
    found = importlib.util.find_spec("swebench")
    if found is None or not found.submodule_search_locations:
        raise InputError(
            f"{task.instance_id}: its row is graded by a log parser of swebench, which is not installed: "
            "pip install 'turnwise[swebench]'"
        )
    return found.submodule_search_locations[0]


def _import_swebench(task: Task) -> Any:
    """swebench's `harness.grading`, without what `swebench.harness` imports beside it: Docker, Modal and `datasets`
    take seconds and some 150 MB, and a `.env` file would be read into this process's environment."""
    folder = _find_swebench(task)
    if "swebench.harness" not in sys.modules:
        package = ModuleType("swebench.harness")
        package.__path__ = [str(Path(folder, "harness"))]
        sys.modules[package.__name__] = package
    return importlib.import_module("swebench.harness.grading")
