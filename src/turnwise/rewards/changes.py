"""What commands do to the repository in a fresh sandbox, as a patch."""

import shlex
from collections.abc import Sequence

from turnwise.errors import SandboxError
from turnwise.sandbox import Sandbox

_DIFFERENCE = "/tmp/turnwise-difference.diff"
# What differs is told between two trees of an index of our own: files that lie there and are in no commit stay out.
_SCRIPT = """(
export GIT_INDEX_FILE=/tmp/turnwise-index
git() {{ command git -c safe.directory='*' "$@"; }}
take() {{ {take}; }}
told() {{
    take && git diff --binary --full-index --no-renames --no-ext-diff "$before" "$(git write-tree)" >{difference}
}}
again() {{ git read-tree "$before" && git checkout-index -afq && git clean -fdq; }}
git read-tree HEAD && take && before=$(git write-tree) || exit 1
{tries}
) </dev/null 2>&1"""


async def changes(
    sandbox: Sandbox, commands: Sequence[str], files: Sequence[str] | None = None, timeout_s: float = 60.0
) -> bytes:
    """What the first of these shell commands that succeeds changes, as `git diff` writes it; b"" where none does.

    They run at the repository's root, each with the repository as it was. `files` are those that are looked at (None:
    all), which saves reading a large repository. Raises SandboxError, also where they take too long: what was
    not looked at is not unchanged.
    """
    take = "git add -A" if files is None else f"git update-index --add --remove -- {shlex.join(files)}"
    first, *others = commands
    tries = " || ".join([f"{{ {first} && told; }}", *(f"{{ again && {other} && told; }}" for other in others)])
    done = await sandbox.exec(_SCRIPT.format(take=take, difference=_DIFFERENCE, tries=tries), timeout_s)
    if done.timed_out:
        raise SandboxError(f"the repository's changes could not be told in {timeout_s:g} s")
    return b"" if done.exit_code else await sandbox.read(_DIFFERENCE)
