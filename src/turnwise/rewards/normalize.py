"""Patches that git refuses as they are, brought in as swebench's harness brings them in.

Predictions of others are often cut short at the end, or made against other lines. The harness then tries what is more
forgiving, in the order of its `GIT_APPLY_CMDS` (swebench/harness/run_evaluation.py). Of these `git apply --reject`
succeeds only where `git apply` did, and is left out here.
"""

from turnwise.rewards.changes import changes
from turnwise.sandbox import Sandbox

_REFUSED = "/tmp/turnwise-refused.diff"
_WAYS = (f"git apply --3way {_REFUSED}", f"patch --batch --forward --fuzz=5 --no-backup-if-mismatch -p1 -i {_REFUSED}")


async def normalize_patch(sandbox: Sandbox, patch: str) -> str:
    """What `patch` does to the repository in a fresh sandbox, as `git diff` writes it; "" where nothing applies it.

    Nothing of the hidden tests may be in that sandbox: what runs there is the patch's doing. Raises SandboxError.
    """
    await sandbox.write(_REFUSED, patch.encode())
    try:
        return (await changes(sandbox, _WAYS)).decode()
    except UnicodeDecodeError:  # a file in an encoding that the patch, a text, cannot speak of
        return ""
