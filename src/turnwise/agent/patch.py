"""Taking the agent's work out of its sandbox: the difference between the working tree and the base commit."""

import logging
import re
import shlex

from turnwise.agent.tools import STATE_DIR
from turnwise.errors import SandboxError
from turnwise.sandbox.protocol import Sandbox

_TIMEOUT_S = 50.0  # a repository in which git hangs is the policy's doing as well
_PATCH_FILE = f"{STATE_DIR}/patch"
_KILLED = (-9, 128 + 9)  # SIGKILL, from the sandbox or by the shell's word: what runs out of memory ends so
# Nothing that the agent may have left in its shell or in git's configuration takes part: no functions or exported
# variables, no hooks, external diff programs, odd prefixes or context, no flags on the index (a fresh one is used).
_ENV = (
    "/usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/nonexistent LC_ALL=C GIT_CONFIG_NOSYSTEM=1 "
    "GIT_TERMINAL_PROMPT=0 GIT_INDEX_FILE={state}/index GIT_DIR={workdir}/.git GIT_WORK_TREE={workdir} "
    "/bin/sh -c {script}"
)
_SCRIPT = r"""
mkdir -p {state} && cd {workdir} && rm -rf {state}/index {state}/index.lock {state}/patch &&
printf '%s\n' {attributes} > {state}/attributes || exit 1
run() {{
    git -c safe.directory='*' -c core.fsmonitor=false -c core.hooksPath=/dev/null -c core.sparseCheckout=false \
        -c core.excludesFile=/dev/null -c core.attributesFile={state}/attributes -c core.autocrlf=false \
        -c core.safecrlf=false -c core.fileMode=true -c core.symlinks=true -c core.quotePath=true "$@"
}}
run read-tree {base} &&
run add -A -- . ':(exclude,glob)**/__pycache__/**' ':(exclude,glob)**/*.pyc' &&
run diff --cached --binary --full-index --no-ext-diff --no-textconv --no-color --no-renames --no-relative -U3 \
    --inter-hunk-context=0 --submodule=short -O/dev/null --src-prefix=a/ --dst-prefix=b/ {base} > {state}/patch
"""
_log = logging.getLogger(__name__)


async def base_of(sandbox: Sandbox, base_commit: str, workdir: str = "/testbed") -> str:
    """The commit that the work in a fresh sandbox is told from: `base_commit`, or where the sandbox starts, if it is
    no whole hash.

    A name ("HEAD" in SWE-smith's rows, a branch) means something in the repository upstream; here it would move with
    the agent's own commits, or is not there. Raises `SandboxError`.
    """
    if re.fullmatch("[0-9a-f]{40}", base_commit):
        return base_commit
    done = await sandbox.exec(
        f"git -c safe.directory='*' -C {shlex.quote(workdir)} rev-parse -q --verify 'HEAD^{{commit}}'", _TIMEOUT_S
    )
    if done.exit_code:
        raise SandboxError(f"the repository in the sandbox has no commit, where its base is {base_commit}")
    return done.output.strip()


async def take_patch(sandbox: Sandbox, base_commit: str, workdir: str = "/testbed") -> str:
    """What is submitted: everything that differs from `base_commit`, as `git apply` takes it; "" when nothing does.

    New files and commits of the agent's own count; ignored files and compiled Python do not. Where a changed file is
    not UTF-8, all files come in git's binary form. A repository that the agent has broken gives "", with the reason in
    the log: it is the policy's doing. Raises `SandboxError` when the sandbox died, or git was killed twice in a row:
    nothing then tells what the agent's work is.
    """
    patch = await _diff(sandbox, base_commit, workdir, attributes="")
    try:
        return patch.decode("utf-8")
    except UnicodeDecodeError:
        return (await _diff(sandbox, base_commit, workdir, attributes="* -diff")).decode("utf-8")


async def _diff(sandbox: Sandbox, base_commit: str, workdir: str, attributes: str) -> bytes:
    where = {"state": STATE_DIR, "workdir": shlex.quote(workdir)}
    script = _SCRIPT.format(**where, attributes=shlex.quote(attributes), base=shlex.quote(base_commit))
    command = _ENV.format(**where, script=shlex.quote(script)) + " </dev/null 2>&1"
    result = await sandbox.exec(command, _TIMEOUT_S)
    if result.exit_code in _KILLED:
        result = await sandbox.exec(command, _TIMEOUT_S)
    if result.exit_code in _KILLED:
        raise SandboxError("git was killed twice while the patch was taken; give the sandbox more memory")
    if result.exit_code != 0:
        _log.warning("no patch can be taken: %s", result.output.strip() or f"exit status {result.exit_code}")
        return b""
    return await sandbox.read(_PATCH_FILE)
