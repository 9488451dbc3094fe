"""Runs tests in a sandbox under our supervisor: a repository's own suite, or a row's own test command."""

import compileall
import functools
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from turnwise.rewards.command import find_pytest
from turnwise.rewards.record import Record, read_record
from turnwise.sandbox import Sandbox, SandboxBackend
from turnwise.types import ExecResult, Mount, SandboxSpec, SuiteResult, TestRun

PLUGIN_DIR = "/opt/turnwise/verify"
LOG_CHARS = 16_000
GRACE_S = 30.0  # for the supervisor to end what the tests left running, and to write the record
# Our own way to run tests: what writes into the repository, or costs start-up and decides no outcome, is off; the
# repository's pytest configuration is not read.
_OFF = ("cacheprovider", "unraisableexception", "threadexception", "faulthandler", "pastebin", "junitxml")
_OPTIONS = (
    *("-q", "--tb=short", "--no-header", "--continue-on-collection-errors"),
    *("-c", "/dev/null", "--rootdir=.", "-o", "addopts="),
    *(f"-pno:{name}" for name in _OFF),
)


@functools.cache
def suite_mount() -> Mount:
    """What runs in the sandbox beside the tests, shown read-only at /opt/turnwise/verify.

    It is compiled here, as an import would do, because in a sandbox it cannot be: that takes 20 ms of every run.
    """
    folder = Path(__file__).parent / "plugin"
    compileall.compile_dir(str(folder), quiet=2)
    return Mount(folder, PLUGIN_DIR)


def with_suite(spec: SandboxSpec) -> SandboxSpec:
    """The spec with `suite_mount()` among its mounts."""
    mount = suite_mount()
    return spec if mount in spec.mounts else replace(spec, mounts=(*spec.mounts, mount))


def suite_command(test_files: Sequence[str] | None, explain: bool = True) -> str:
    """The shell command that runs test files (None: the whole suite) from the repository's root in our own way.

    A fixed hash seed makes the order of sets the same in every run.
    """
    mode, rewriting = ("ours+explain", "rewrite") if explain else ("ours", "plain")
    words = [*_OPTIONS, f"--assert={rewriting}", *(test_files or ())]
    return (
        "env -u PYTHONPATH -u PYTEST_ADDOPTS -u PYTEST_PLUGINS PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 "
        f'python -s {PLUGIN_DIR}/turnwise_pytest.py {mode} "$PYTHONPATH" {shlex.join(words)}'
    )


def recorded_command(run: TestRun, explain: bool = False) -> str:
    """A row's own test command, with our recorder in the place of its call of pytest where it has one."""
    call, option = find_pytest(run.command), "+explain" if explain else ""
    return run.command if call is None else call.replaced_by(f"{PLUGIN_DIR}/turnwise_pytest.py", option)


class Supervised:
    """A command to be run under the supervisor, once.

    The record lies at a path that cannot be guessed, and is sealed with `secret`, which must be the first word of the
    file `secret_path` in the sandbox. `kept` are files whose contents the record keeps as they were before it ran.
    """

    def __init__(self, command: str, timeout_s: float, secret: bytes, secret_path: str, *kept: str) -> None:
        self._secret, self._timeout_s = secret, timeout_s
        self._results = f"/tmp/turnwise-{secrets.token_hex(16)}"
        words = [self._results, secret_path, f"{timeout_s:g}", command, *kept]
        self.command = f"python -I -S -B {PLUGIN_DIR}/turnwise_supervisor.py {shlex.join(words)}"

    async def run(self, sandbox: Sandbox, before: str = "") -> tuple[ExecResult, Record]:
        """What the sandbox said, and the record; `before` are shell commands that come first. Raises SandboxError."""
        command = f"({before} {self.command}) </dev/null 2>&1"
        done = await sandbox.exec(command, self._timeout_s + GRACE_S)
        try:
            record = read_record(await sandbox.read(self._results), self._secret)
        except FileNotFoundError:
            record = Record(timed_out=done.timed_out, log=done.output)
        return done, replace(record, duration_s=done.duration_s)


async def run_suite(
    sandbox: Sandbox, test_files: Sequence[str] | None, timeout_s: float, *, explain: bool = True
) -> SuiteResult:
    """Run the test files (None: all that pytest finds) in a sandbox whose current directory is the repository's root.

    The sandbox's spec must hold `suite_mount()`. `explain` also gathers why each failed test failed, at the price of
    pytest's assertion rewriting (about 0.1 s a file). Raises SandboxError; a suite that crashes, hangs or cannot be
    collected is a result.

    >>> async with backend.create(with_suite(spec)) as sandbox:  # doctest: +SKIP
    ...     (await run_suite(sandbox, ["tests/test_add.py"], timeout_s=30)).outcomes
    {'tests/test_add.py::test_add': 'passed'}
    """
    secret, path = secrets.token_hex(16).encode(), f"/tmp/turnwise-{secrets.token_hex(16)}.secret"
    await sandbox.write(path, secret)
    _, record = await Supervised(suite_command(test_files, explain), timeout_s, secret, path).run(sandbox)
    return suite_result(record)


def suite_result(record: Record) -> SuiteResult:
    """A record as the result of a suite, in which an expected failure counts as passed."""
    return SuiteResult(
        outcomes={name: "passed" if word == "xfailed" else word for name, word in record.outcomes.items()},
        exit_code=1 if record.exit_code is None else record.exit_code,
        log=record.log[-LOG_CHARS:],
        timed_out=record.timed_out,
        duration_s=record.duration_s,
        failures=record.failures,
    )


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
