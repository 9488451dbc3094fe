"""The hidden tests' word on a patch, spoken in a fresh sandbox (DESIGN.md, rule 1)."""

import re
import shlex
import time
from collections.abc import Iterable, Mapping

from turnwise.errors import SandboxError
from turnwise.rewards.suite import LOG_CHARS, parse_results, results_path, suite_command, with_suite
from turnwise.sandbox import Sandbox, SandboxBackend
from turnwise.types import ExecResult, SandboxSpec, SuiteResult, Task, Verdict, VerdictKind

PATCH_PATH, TEST_PATCH_PATH = "/tmp/turnwise-submitted.diff", "/tmp/turnwise-hidden.diff"
PATCH_REFUSED = 97
GIT = "git -c safe.directory='*'"
TOUCHED = re.compile(r'^(?:\+\+\+|---|rename from|rename to) "?(?:[ab]/)?(.+?)"?\s*$', re.MULTILINE)


async def verify(task: Task, patch: str, *, backend: SandboxBackend, spec: SandboxSpec, timeout_s: float) -> Verdict:
    """Apply `patch` to the task's repository in a fresh sandbox, bring the hidden tests, run them and grade.

    `spec` is the task's own environment without hidden tests. Whatever the patch does is a verdict, never an
    exception; a sandbox that fails gives INFRASTRUCTURE_FAILURE, which says nothing about the patch. `timeout_s` holds
    for the whole run of the tests. One sandbox, one command.
    """
    if not patch.strip():
        return Verdict(VerdictKind.EMPTY_PATCH)
    started = time.perf_counter()
    results = results_path()
    try:
        async with backend.create(with_suite(spec)) as sandbox:
            done, lines = await _run_hidden_tests(sandbox, task, patch, results, timeout_s)
    except SandboxError as error:
        return Verdict(VerdictKind.INFRASTRUCTURE_FAILURE, log=str(error), duration_s=time.perf_counter() - started)
    return _grade(task, done, lines, time.perf_counter() - started)


async def _run_hidden_tests(
    sandbox: Sandbox, task: Task, patch: str, results: str, timeout_s: float
) -> tuple[ExecResult, str | None]:
    """What the one command did, and the results' lines: None when it never came to the tests."""
    await sandbox.write(PATCH_PATH, _with_newline(patch).encode())
    await sandbox.write(TEST_PATCH_PATH, _with_newline(task.test_patch).encode())
    done = await sandbox.exec(_script(task, patch, results), timeout_s)
    try:
        return done, (await sandbox.read(results)).decode(errors="replace")
    except FileNotFoundError:
        return done, None


def _script(task: Task, patch: str, results: str) -> str:
    """One subshell, because the sandbox's own shell must outlive a refused patch.

    Compiled files never come with a patch: Python trusts some without looking at the source beside them.
    """
    restored = sorted({*task.test_files, *(path for path in touched_files(patch) if _steers_pytest(path))})
    steps = [f"{GIT} apply --whitespace=nowarn --exclude='*.pyc' {PATCH_PATH} || exit {PATCH_REFUSED}"]
    steps += [_restore(path, task.base_commit) for path in restored]
    if task.test_patch.strip():
        steps.append(f"{GIT} apply --whitespace=nowarn {TEST_PATCH_PATH} || exit 1")
    steps.append(f"rm -f {PATCH_PATH} {TEST_PATCH_PATH}")
    steps.append(suite_command(results, task.test_files, explain=False))
    return "(\n" + "\n".join(steps) + "\n)"


def _restore(path: str, base_commit: str) -> str:
    """Back to the base commit's content, or gone where the base has no such file."""
    quoted = shlex.quote(path)
    return f"rm -rf {quoted}; {GIT} checkout -q {base_commit} -- {quoted} 2>/dev/null"


def touched_files(patch: str) -> set[str]:
    """Paths that a unified diff names, old and new.

    >>> sorted(touched_files("--- a/pkg/one.py\\n+++ b/pkg/one.py\\n@@ -1 +1 @@\\n-x\\n+y\\n"))
    ['pkg/one.py']
    """
    return {path for path in TOUCHED.findall(patch) if path != "/dev/null"}


def _steers_pytest(path: str) -> bool:
    """True for files that change how other tests run; configuration files do not, because our runner reads none."""
    return path.rsplit("/", 1)[-1] == "conftest.py"


def _grade(task: Task, done: ExecResult, lines: str | None, duration_s: float) -> Verdict:
    """The kind and the outcomes by test.

    What the submitted code does to the exit code decides nothing: our plugin makes the results file before any code of
    the repository runs, so only its absence tells that the tests were never reached.
    """
    log = done.output[-LOG_CHARS:]
    if lines is None and not done.timed_out:
        refused = done.exit_code == PATCH_REFUSED
        kind = VerdictKind.PATCH_DOES_NOT_APPLY if refused else VerdictKind.INFRASTRUCTURE_FAILURE
        return Verdict(kind, log=log, duration_s=duration_s)
    suite = parse_results(lines or "")
    fail_to_pass, pass_to_pass = _outcomes(task.fail_to_pass, suite), _outcomes(task.pass_to_pass, suite)
    kind = VerdictKind.TESTS_TIMED_OUT if done.timed_out else _word(fail_to_pass, pass_to_pass)
    return Verdict(kind, fail_to_pass, pass_to_pass, log, duration_s)


def _outcomes(test_ids: Iterable[str], suite: SuiteResult) -> dict[str, str]:
    """An id without an outcome is "error" where its file could not be collected, else "missing"."""
    return {
        test_id: suite.outcomes.get(test_id, "error" if test_id.split("::")[0] in suite.failures else "missing")
        for test_id in test_ids
    }


def _word(fail_to_pass: Mapping[str, str], pass_to_pass: Mapping[str, str]) -> VerdictKind:
    """SWE-bench's rule: every FAIL_TO_PASS passes; a PASS_TO_PASS may also be skipped."""
    passed = all(outcome == "passed" for outcome in fail_to_pass.values())
    kept = all(outcome in ("passed", "skipped") for outcome in pass_to_pass.values())
    return VerdictKind.RESOLVED if fail_to_pass and passed and kept else VerdictKind.UNRESOLVED


def _with_newline(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"
