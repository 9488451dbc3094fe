"""Runs a repository's own pytest suite in a sandbox; outcomes come from structured results, never from the log."""

import json
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from turnwise.sandbox import Sandbox, SandboxBackend
from turnwise.types import Frame, Mount, SandboxSpec, SuiteResult, TestFailure

PLUGIN_DIR = "/opt/turnwise/verify"
LOG_CHARS = 16_000


def suite_mount() -> Mount:
    """Our pytest plugin, shown read-only at /opt/turnwise/verify; a sandbox needs it only where tests are run."""
    return Mount(Path(__file__).parent / "plugin", PLUGIN_DIR)


def results_path() -> str:
    """A path for one run's results: outside the repository, and not to be guessed by what runs in it."""
    return f"/tmp/turnwise-{secrets.token_hex(16)}.jsonl"


def suite_command(results: str, test_files: Sequence[str] | None, explain: bool = True) -> str:
    """The shell command that runs the files (None: the whole suite) from the repository's root.

    The repository's import paths (PYTHONPATH) are handed over under another name, because Python must not see them
    while pytest is imported; a fixed hash seed makes the order of sets the same in every run.
    """
    words = [f"{PLUGIN_DIR}/turnwise_results.py", results, "explain" if explain else "plain", *(test_files or ())]
    return (
        'env -u PYTHONPATH -u PYTHONSTARTUP -u PYTHONHOME TURNWISE_PYTHONPATH="$PYTHONPATH" PYTHONHASHSEED=0 '
        f"PYTHONDONTWRITEBYTECODE=1 python -B -s {shlex.join(words)} </dev/null 2>&1"
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
    result = parse_results(lines)
    return replace(
        result,
        log=done.output[-LOG_CHARS:],
        timed_out=done.timed_out,
        exit_code=done.exit_code,
        duration_s=done.duration_s,
    )


def parse_results(lines: str) -> SuiteResult:
    """The outcomes in the plugin's JSON lines; what the command itself tells (log, exit code, times) is left empty.

    A line cut short by a kill or a full disk is passed over: its test counts as missing.
    """
    outcomes: dict[str, str] = {}
    failures: dict[str, TestFailure] = {}
    for line in lines.splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if "id" not in row:
            continue
        outcomes[row["id"]] = row["outcome"]
        if "failure" in row:
            failures[row["id"]] = _failure(row["failure"])
    return SuiteResult(outcomes, 0, "", False, 0.0, failures)


def _failure(row: dict[str, Any]) -> TestFailure:
    return TestFailure(
        phase=row["phase"],
        exception=row["exception"],
        message=row["message"],
        statement=row.get("statement", ""),
        variables=row.get("variables", {}),
        frames=tuple(Frame(**frame) for frame in row.get("frames", ())),
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


def with_suite(spec: SandboxSpec) -> SandboxSpec:
    """The spec with `suite_mount()` among its mounts."""
    mount = suite_mount()
    return spec if mount in spec.mounts else replace(spec, mounts=(*spec.mounts, mount))
