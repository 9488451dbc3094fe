"""Patches that git refuses as they are, brought in as swebench's harness brings them in.

Predictions of others are often cut short at the end, or made against other lines. The harness then tries what is more
forgiving, in the order of its `GIT_APPLY_CMDS` (swebench/harness/run_evaluation.py). Of these `git apply --reject`
succeeds only where `git apply` did, and is left out here.
"""

from turnwise.sandbox import Sandbox

_REFUSED, _RESTATED = "/tmp/turnwise-refused.diff", "/tmp/turnwise-restated.diff"
_TIMEOUT_S = 60.0
# What differs is told between two trees of an index of our own: files that lie there and are in no commit stay out.
_SCRIPT = f"""(
export GIT_INDEX_FILE=/tmp/turnwise-index
git() {{ command git -c safe.directory='*' "$@"; }}
try() {{
    "$@" {_REFUSED} && git add -A &&
        git diff --binary --full-index --no-renames --no-ext-diff "$before" "$(git write-tree)" >{_RESTATED}
}}
again() {{ git read-tree "$before" && git checkout-index -afq && git clean -fdq; }}
git add -A && before=$(git write-tree) || exit 1
try git apply --3way || {{ again && try patch --batch --forward --fuzz=5 --no-backup-if-mismatch -p1 -i; }}
) </dev/null 2>&1"""


async def restate(sandbox: Sandbox, patch: str) -> str:
    """What `patch` does to the repository in a fresh sandbox, as `git diff` writes it; "" where nothing applies it.

    Nothing of the hidden tests may be in that sandbox: what runs there is told by the patch. Raises SandboxError.
    """
    await sandbox.write(_REFUSED, patch.encode())
    done = await sandbox.exec(_SCRIPT, _TIMEOUT_S)
    if done.exit_code:
        return ""
    try:
        return (await sandbox.read(_RESTATED)).decode()
    except UnicodeDecodeError:  # a file in an encoding that the patch, a text, cannot speak of
        return ""
