"""Rows of R2E-Gym (huggingface.co/datasets/R2E-Gym): commits with tests that were extracted or written for them."""

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from turnwise.errors import TaskError
from turnwise.tasks.diffs import added_file
from turnwise.tasks.formats.fields import ForeignRow, Revision, Text, decoded, told_beside
from turnwise.types import Checkout, Installation, Task, TestRun

_REPOSITORIES = {
    "aiohttp": "aio-libs/aiohttp",
    "bokeh": "bokeh/bokeh",
    "coveragepy": "nedbat/coveragepy",
    "datalad": "datalad/datalad",
    "numpy": "numpy/numpy",
    "orange3": "biolab/orange3",
    "pandas": "pandas-dev/pandas",
    "pillow": "python-pillow/Pillow",
    "pyramid": "Pylons/pyramid",
    "scrapy": "scrapy/scrapy",
    "statsmodels": "statsmodels/statsmodels",
    "sympy": "sympy/sympy",
    "tornado": "tornadoweb/tornado",
}
_PASSED = re.compile(r"^(?:\x1b\[\d+m)*PASSED(?:\x1b\[\d+m)* (.+)$", re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[\d+m")
_SIGNS = {"context": " ", "added": "+", "deleted": "-", "note": "\\ "}
_RUNNERS = ("unittest_custom_runner.py", "tornado_unittest_runner.py")
_WITH_SCREEN = {"orange3": "QT_QPA_PLATFORM=minimal xvfb-run --auto-servernum "}
_SUMMARY = "short test summary info"


class _Range(BaseModel):
    start: int
    length: int | None = None

    def __str__(self) -> str:
        return str(self.start) if self.length is None else f"{self.start},{self.length}"


class _Descriptor(BaseModel):
    old_range: _Range
    new_range: _Range
    section: str = ""


class _Line(BaseModel):
    content: str
    type: Literal["context", "added", "deleted", "note"]


class _LineGroup(BaseModel):
    all_lines: list[_Line]


class _Hunk(BaseModel):
    descriptor: _Descriptor
    line_group: _LineGroup

    def text(self) -> str:
        """The hunk as it stood in the commit's diff."""
        section = f" {self.descriptor.section}" if self.descriptor.section else ""
        head = f"@@ -{self.descriptor.old_range} +{self.descriptor.new_range} @@{section}\n"
        return head + "".join(f"{_SIGNS[line.type]}{line.content}\n" for line in self.line_group.all_lines)


class _Path(BaseModel):
    path: str


class _Header(BaseModel):
    file: _Path
    misc_line: str | None = None


class _FileDiff(BaseModel):
    header: _Header
    minus_file: _Path | None = None
    plus_file: _Path | None = None
    is_binary_file: bool = False
    hunks: list[_Hunk] = Field(default_factory=list)

    @property
    def is_source(self) -> bool:
        """True for Python that is no test, which is what R2E-Gym takes for the solution."""
        folders, _, name = self.header.file.path.rpartition("/")
        is_test = name.startswith("test_") or name.endswith("_test.py")
        return name.endswith(".py") and not is_test and not {"test", "tests"} & set(folders.lower().split("/"))

    def text(self) -> str:
        """The file's part of the commit's diff."""
        misc = f"{self.header.misc_line}\n" if self.header.misc_line else ""
        names = f"--- {self.minus_file.path}\n+++ {self.plus_file.path}\n" if self.minus_file and self.plus_file else ""
        path = self.header.file.path
        return f"diff --git a/{path} b/{path}\n{misc}{names}" + "".join(hunk.text() for hunk in self.hunks)


class _Commit(BaseModel):
    file_diffs: list[_FileDiff]
    old_commit_hash: Revision
    commit_date: str = ""


class _Execution(BaseModel):
    test_file_codes: tuple[str, ...]
    test_file_names: Annotated[tuple[Text, ...], Field(min_length=1)]
    new_commit_res_stdout: Text
    old_commit_res_stdout: str | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if len(self.test_file_codes) != len(self.test_file_names):
            raise ValueError("names another number of test files than it holds")
        return self


class R2ERow(ForeignRow):
    """A row with the parsed commit, and with the tests and their logs before and after it."""

    repo_name: Text
    docker_image: Text
    commit_hash: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    problem_statement: Text
    expected_output_json: Annotated[dict[str, str], BeforeValidator(decoded)]
    parsed_commit_content: Annotated[_Commit, BeforeValidator(decoded)]
    execution_result_content: Annotated[_Execution, BeforeValidator(decoded)]

    def task(self) -> Task:
        """The task. Its tests are the row's files under r2e_tests; they are in no commit, so the test patch adds them.

        Tests that `expected_output_json` has as PASSED must pass: those that the log before the commit has not are
        FAIL_TO_PASS, the rest PASS_TO_PASS, by the node ids of the log after it. R2E-Gym's reward also wants tests
        that it expects to fail to go on failing; nothing here does. Raises TaskError where no test is left to fix, or
        the commit changes no Python outside its tests.
        """
        repo = _REPOSITORIES.get(self.repo_name)
        if repo is None:
            raise TaskError(f"field 'repo_name': {self.repo_name!r} is no repository of R2E-Gym")
        commit, execution = self.parsed_commit_content, self.execution_result_content
        patch = "".join(file.text() for file in commit.file_diffs if file.is_source and not file.is_binary_file)
        if not patch:
            raise TaskError("field 'parsed_commit_content': changes no Python file that is no test")
        to_fix, to_keep = self._deciding_tests()
        files = zip(execution.test_file_names, execution.test_file_codes, strict=True)
        return Task(
            **told_beside(self) | {"created_at": self.created_at or commit.commit_date},
            instance_id=f"{repo.replace('/', '__')}-{self.commit_hash}",
            repo=repo,
            base_commit=commit.old_commit_hash,
            patch=patch,
            test_patch="".join(added_file(f"r2e_tests/{name}", code) for name, code in files),
            problem_statement=self.problem_statement,
            fail_to_pass=to_fix,
            pass_to_pass=to_keep,
            environment=Checkout(Installation(pip_packages=("pytest",)), self.docker_image),
            test_run=TestRun(self._command(), "parse_log_pytest"),
        )

    def _command(self) -> str:
        """The command that R2E-Gym ran the tests by; its images keep the environment in the repository's .venv."""
        runner = next((name for name in self.execution_result_content.test_file_names if name in _RUNNERS), None)
        tests = f"r2e_tests/{runner}" if runner else "-m pytest -rA r2e_tests"
        screen = _WITH_SCREEN.get(self.repo_name, "")
        return f'PATH="$PWD/.venv/bin:$PATH" {screen}python -W ignore {tests}'

    def _deciding_tests(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        execution = self.execution_result_content
        expected = {_named(name) for name, status in self.expected_output_json.items() if status == "PASSED"}
        after = [node for node in _passed(execution.new_commit_res_stdout) if _dotted(node) in expected]
        before = set(_passed(execution.old_commit_res_stdout or ""))
        to_fix = tuple(node for node in after if node not in before)
        if not to_fix:
            raise TaskError("field 'execution_result_content': no test passes after the commit that did not before it")
        return to_fix, tuple(node for node in after if node in before)


def _passed(log: str) -> list[str]:
    """The node ids that a pytest log's summary has as passed, in its order."""
    summary = log.partition(_SUMMARY)[2]
    return list(dict.fromkeys(_named(found) for found in _PASSED.findall(summary)))


def _dotted(node_id: str) -> str:
    """A node id as R2E-Gym names it: what follows the file, with dots."""
    return ".".join(node_id.split("::")[1:])


def _named(name: str) -> str:
    return _COLOUR.sub("", name).split(" - ")[0]
