"""Runs a repository's own pytest suite in a sandbox; outcomes come from structured results, never from the log."""

import compileall
import functools
import hmac
import json
import secrets
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from turnwise.sandbox import Sandbox, SandboxBackend
from turnwise.types import Mount, SandboxSpec, SuiteResult, TestFailure

PLUGIN_DIR = "/opt/turnwise/verify"
LOG_CHARS = 16_000


@functools.cache
def suite_mount() -> Mount:
    """Our pytest plugin, shown read-only at /opt/turnwise/verify; a sandbox needs it only where tests are run.

    It is compiled here, as an import would do, because in a sandbox it cannot be: that takes 20 ms of every run.
    """
    folder = Path(__file__).parent / "plugin"
    compileall.compile_dir(str(folder), quiet=2)
    return Mount(folder, PLUGIN_DIR)


def results_path() -> str:
    """A path for one run's results: outside the repository, and not to be guessed by what runs in it."""
    return f"/tmp/turnwise-{secrets.token_hex(16)}.jsonl"


def suite_command(
    results: str,
    test_files: Sequence[str] | None,
    explain: bool = True,
    *,
    secret: str = "-",
    suspects: str = "",
) -> str:
    """The shell command that runs the files (None: the whole suite) from the repository's root.

    `secret` is the path of a file in the sandbox whose first word seals the results, `suspects` that of a
    file with what `git apply --numstat -z` said of the patch under judgement.
    """
    mode = "explain" if explain else "plain"
    return supervised_command([results, secret, "pytest", mode, suspects, *(test_files or ())])


def supervised_command(
    words: Sequence[str], python: Sequence[str] = ("python",), assignments: Sequence[str] = ()
) -> str:
    """The shell command that starts our supervisor; see its module for the words.

    The repository's import paths (PYTHONPATH) are handed over under another name, because Python must not see them
    while pytest is imported; a fixed hash seed makes the order of sets the same in every run.
    """
    assignments = [f"TURNWISE_{each}" if each.startswith("PYTHONPATH=") else each for each in assignments]
    return (
        'env -u PYTHONPATH -u PYTHONSTARTUP -u PYTHONHOME TURNWISE_PYTHONPATH="$PYTHONPATH" PYTHONHASHSEED=0 '
        f"PYTHONDONTWRITEBYTECODE=1 {shlex.join([*assignments, *python])} -B -s "
        f"{PLUGIN_DIR}/turnwise_supervisor.py {shlex.join(words)} </dev/null 2>&1"
    )


async def run_suite(
    sandbox: Sandbox, test_files: Sequence[str] | None, timeout_s: float, *, explain: bool = True
) -> SuiteResult:
    """Run the test files (None: all that pytest finds) in a sandbox whose current directory is the repository's root.

    The sandbox's spec must hold `suite_mount()`. `explain` also gathers why each failed test failed, at the price of
    pytest's assertion rewriting (about 0.1 s a file). Raises SandboxError; a suite that crashes, hangs or cannot be
    collected is a result.

    >>> async with backend.create(replace(spec, mounts=(*spec.mounts, suite_mount()))) as sandbox:  # doctest: +SKIP
    ...     (await run_suite(sandbox, ["tests/test_add.py"], timeout_s=30)).outcomes
    {'tests/test_add.py::test_add': 'passed'}
    """
    path = results_path()
    command = suite_command(path, test_files, explain)
    done = await sandbox.exec(command, timeout_s)
    try:
        lines = (await sandbox.read(path)).decode(errors="replace")
    except FileNotFoundError:  # Python or pytest did not even start: the log says why
        lines = ""
    return replace(
        read_record(lines, b"").suite,
        log=done.output[-LOG_CHARS:],
        timed_out=done.timed_out,
        exit_code=done.exit_code,
        duration_s=done.duration_s,
    )


@dataclass(frozen=True)
class Record:
    """What the supervisor kept of one run of tests.

    `suite` holds outcomes and failures only; `names` is what a log may call a test, by its id. `in_sub_tests` are names
    of tests that failed in sub-tests: on their own line of the log unittest says nothing of that before Python 3.11.
    `alarms` say, each in a sentence, what steered the tests that must not.
    `exit_code` is the tests' own (-N for signal N), None in a record that is cut short. `sealed`: it ends with the
    supervisor's seal, so nothing else wrote it. `started`, `finished`: pytest or the test program came to its start
    and to its end. `log_digest` is of the log beside it.

    >>> read_record('{"id": "t.py::a", "outcome": "passed"}\\n', b"").suite.outcomes
    {'t.py::a': 'passed'}
    """

    suite: SuiteResult
    alarms: tuple[str, ...]
    exit_code: int | None
    sealed: bool
    started: bool
    finished: bool
    log_digest: str = ""
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    in_sub_tests: frozenset[str] = frozenset()


def read_record(text: str, secret: bytes) -> Record:
    """The record in the supervisor's JSON lines, sealed with `secret`.

    A line that is no row, such as one cut short by a kill or a full disk, is passed over where there is no seal: its
    test counts as missing. A test reported with two outcomes is an alarm.
    """
    sealed, lines = _is_sealed(text, secret), list(_rows(text))
    rows = [row for row in lines if row is not None]
    tests = [row for row in rows if row.outcome]
    names = {test.id: test.names or [test.id] for test in tests}
    return Record(
        SuiteResult(
            outcomes={test.id: test.outcome for test in reversed(tests)},
            exit_code=0,
            log="",
            timed_out=False,
            duration_s=0.0,
            failures={test.id: test.failure for test in tests if test.failure is not None},
        ),
        alarms=(
            *(row.alarm for row in rows if row.alarm),
            *(["the record holds a line that is no row of it"] if sealed and None in lines else ()),
            *_told_twice(tests),
        ),
        exit_code=next((row.end.exit_code for row in reversed(rows) if row.end is not None), None),
        sealed=sealed,
        started=any(row.runner for row in rows),
        finished=any(row.exit_code is not None for row in rows),
        log_digest=next((row.end.log for row in reversed(rows) if row.end is not None), ""),
        names=names,
        in_sub_tests=frozenset(name for test in tests if test.in_sub_test for name in names[test.id]),
    )


def _told_twice(tests: Iterable["_Row"]) -> Iterator[str]:
    """An alarm for each test with two outcomes."""
    outcomes: dict[str, str] = {}
    for test in tests:
        if outcomes.setdefault(test.id, test.outcome) != test.outcome:
            yield f"{test.id} was reported as {outcomes[test.id]} and as {test.outcome}"


class _End(BaseModel):
    exit_code: int | None = None
    log: str = ""


class _Row(BaseModel):
    """One line; see turnwise_results.py and turnwise_script.py."""

    runner: str = ""
    id: str = ""
    outcome: Literal["", "passed", "skipped", "failed", "error"] = ""
    names: list[str] = []
    in_sub_test: bool = False
    failure: TestFailure | None = None
    alarm: str = ""
    exit_code: int | None = None
    end: _End | None = None


def _rows(text: str) -> Iterator[_Row | None]:
    """The lines of a record; None for one that is no row: what is not sealed may hold anything."""
    for line in text.splitlines():
        try:
            # A lone surrogate, which JSON can tell and no file can hold, becomes a question mark.
            yield _Row.model_validate_json(json.dumps(json.loads(line), ensure_ascii=False).encode(errors="replace"))
        except (ValueError, RecursionError):
            yield None


def _is_sealed(text: str, secret: bytes) -> bool:
    body, _, last = text.rstrip("\n").rpartition("\n")
    expected = blake2b(f"{body}\n".encode(), key=secret, digest_size=32).hexdigest()
    return hmac.compare_digest(last.encode(), json.dumps({"seal": expected}).encode())


class FreshSuiteRunner:
    """Runs a suite in a sandbox of its own: what making tasks needs (a fresh sandbox for every mutant).

    >>> run = FreshSuiteRunner(backend)  # doctest: +SKIP
    >>> (await run(spec, None, timeout_s=60)).outcomes  # doctest: +SKIP
    {'tests/test_add.py::test_add': 'passed'}
    """

    def __init__(self, backend: SandboxBackend) -> None:
        self._backend = backend

    async def __call__(self, spec: SandboxSpec, test_files: Sequence[str] | None, timeout_s: float) -> SuiteResult:
        """Outcomes of the files (None: the whole suite) at the spec's root. Raises SandboxError."""
        async with self._backend.create(with_suite(spec)) as sandbox:
            return await run_suite(sandbox, test_files, timeout_s)


def with_suite(spec: SandboxSpec) -> SandboxSpec:
    """The spec with `suite_mount()` among its mounts."""
    mount = suite_mount()
    return spec if mount in spec.mounts else replace(spec, mounts=(*spec.mounts, mount))
