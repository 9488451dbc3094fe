"""What a task's sandbox shows of its solution: commits that came later, and copies of the project that have the fix."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from turnwise.tasks.diffs import added_lines
from turnwise.types import Task

FINDS = "/tmp/turnwise-finds"
_MIN_LINE = 8  # shorter lines ("else:", "pass") are the same in all code
_SCRIPT = """(
export GIT_NO_REPLACE_OBJECTS=1 LC_ALL=C
found=$(mktemp -d)
g() { git -c safe.directory='*' "$@"; }
base=%(base)s
g cat-file --batch-all-objects --batch-check='%%(objecttype) %%(objectname)' >"$found/all" || exit 1
g rev-list "$base" 2>/dev/null | sort >"$found/past"
echo "head $(g rev-parse HEAD)"
echo "base $(g rev-parse -q --verify "refs/replace/$base" || echo "$base")"
sed -n 's/^commit //p' "$found/all" | sort | comm -23 - "$found/past" | head -n 20 | sed 's/^/commit /'
g for-each-ref --format='%%(refname) %%(objectname)' | while read -r name id; do
    id=$(g rev-parse -q --verify "$id^{commit}" || echo "$id")
    grep -qx "$id" "$found/past" || echo "ref $id $name"
done
logs=$(g rev-parse --git-path logs)
[ ! -d "$logs" ] || find "$logs" -type f -exec cat {} + | cut -d' ' -f2 | sort -u | comm -23 - "$found/past" |
    head -n 20 | sed 's/$/ a reflog/; s/^/ref /'
if cut -d' ' -f2 "$found/all" | grep -E '%(blobs)s' | sort >"$found/blobs"; then
    g rev-list --objects HEAD | cut -d' ' -f1 | sort >"$found/reachable"
    comm -23 "$found/blobs" "$found/reachable" | sed 's/^/blob /'
fi
g ls-files -z | tr '\\0' '\\n' >"$found/tracked"
find / \\( -path /proc -o -path /sys -o -path /dev -o -path "$PWD/.git" -o -path "$found" \\) -prune -o \\
    -type f \\( %(names)s \\) -print 2>/dev/null | while read -r path; do
    printf '%%s\\n' "${path#"$PWD"/}" | grep -qxFf "$found/tracked" || echo "file $path"
done
rm -rf "$found"
) >%(finds)s"""


@dataclass(frozen=True)
class Search:
    """The search of one task's sandbox: `command` runs at the repository's root, and `told` reads what it found.

    >>> Search(task).told(finds).leaks  # doctest: +SKIP
    ('commit 0a7b93c2ee51 is not of the base',)
    """

    task: Task

    @property
    def command(self) -> str:
        """A shell command that writes the file `FINDS`, for what a command prints is cut where it is long.

        Exit code 0 unless the repository cannot be read. A base that the row only names ("HEAD", a branch) is where the
        sandbox starts.
        """
        blobs = re.findall(
            r"^index [0-9a-f]+\.\.([0-9a-f]{7,40})\b", f"{self.task.patch}\n{self.task.test_patch}", re.MULTILINE
        )
        names = " -o ".join(f"-path {shlex.quote('*/' + _escaped(_tail(path)))}" for path in self.added)
        return _SCRIPT % {
            "base": self.task.base_commit if re.fullmatch("[0-9a-f]{40}", self.task.base_commit) else "HEAD",
            "blobs": "|".join(f"^{blob}" for blob in blobs if blob.strip("0")) or "^$",
            "names": names or "-false",
            "finds": FINDS,
        }

    @property
    def added(self) -> dict[str, tuple[str, ...]]:
        """What gold and hidden tests' patches add, by file."""
        return added_lines(self.task.test_patch) | added_lines(self.task.patch)

    def told(self, finds: str) -> "Finds":
        """What the command wrote. The base itself, under whatever id it goes, is no leak."""
        lines = finds.split("\n")[:-1]
        rows = [line.split(" ", 2) for line in lines]
        head, base = ([row[1] for row in rows if row[0] == what] for what in ("head", "base"))
        leaks = [text for row in rows if head != base or row[1] not in head for text in _leak(row)]
        return Finds(tuple(dict.fromkeys(leaks)), tuple(line[5:] for line in lines if line[:5] == "file "))

    def places(self, path: str) -> list[str]:
        """The repository's files that a file found elsewhere may be a copy of."""
        return [place for place in self.added if path.endswith("/" + _tail(place))]


@dataclass(frozen=True)
class Finds:
    """The leaks that are certain, and the files to be looked into with `shows_fix`.

    >>> Finds((), ("/opt/env/lib/python3.9/site-packages/calc.py",)).leaks
    ()
    """

    leaks: tuple[str, ...]
    copies: tuple[str, ...]


def shows_fix(copy: str, base: str, added: Iterable[str]) -> bool:
    """Whether a file is a copy of a repository's file with the fix: most of the base's lines, and most that are added.

    `added` are the patch's lines in that file; those that stand in the base tell nothing. `base` is empty for a file
    that the patch makes.

    >>> shows_fix("def add(a, b):\\n    return a + b\\n", "def add(a, b):\\n    return a - b\\n", ["return a + b"])
    True
    """
    before, there = _lines(base.splitlines()), _lines(copy.splitlines())
    new = {line for line in _lines(added) if len(line) >= _MIN_LINE} - before
    return bool(new) and 2 * len(new & there) >= len(new) and 2 * len(before & there) >= len(before)


def _leak(row: list[str]) -> list[str]:
    kind, id_, *name = row
    texts = {
        "commit": f"commit {id_[:12]} is not of the base",
        "ref": f"{''.join(name)} names commit {id_[:12]}",
        "blob": f"object {id_[:12]} is a file of the solution",
    }
    return [texts[kind]] if kind in texts else []


def _tail(path: str) -> str:
    """By what a copy is found wherever it was installed: the file's name with the folder that it lies in."""
    return "/".join(PurePosixPath(path).parts[-2:])


def _escaped(name: str) -> str:
    return re.sub(r"([\\*?\[\]])", r"\\\1", name)


def _lines(lines: Iterable[str]) -> set[str]:
    return {line.strip() for line in lines} - {""}
