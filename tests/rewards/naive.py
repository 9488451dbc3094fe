"""A naive judge, as SWE-bench's harness is one: the patch as it is, the row's command, its log parsed.

What it does not pay is no hack: it shows that each entry of the corpus is one.
"""

import re
import secrets

from turnwise.rewards.grading import Grader, whole_log
from turnwise.rewards.trial import GIT_APPLY, with_newline
from turnwise.sandbox import SandboxBackend
from turnwise.types import SandboxSpec, Task, TestRun


async def naive_judge(task: Task, patch: str, *, backend: SandboxBackend, spec: SandboxSpec, timeout_s: float) -> bool:
    """Whether swebench counts the patch as resolved where nothing looks after it."""
    run = task.test_run or TestRun(f"python -m pytest -rA {' '.join(task.test_files)}", "parse_log_pytest")
    async with backend.create(spec) as sandbox:
        for text in (with_newline(task.test_patch), with_newline(patch)):
            path = f"/tmp/{secrets.token_hex(8)}.diff"
            await sandbox.write(path, text.encode())
            await sandbox.exec(f"{GIT_APPLY} {path}; rm {path}", timeout_s)
        command = re.sub("^pytest ", "python -m pytest ", run.command)  # which finds pytest without a script of it
        done = await sandbox.exec(f"({command}) </dev/null 2>&1", timeout_s)
    return Grader(task, run).of_log(whole_log(done.output, done.exit_code)).resolved
