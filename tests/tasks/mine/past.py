"""A repository with a past worth mining, made on the spot: merged, squashed, plain, large and unsteady commits."""

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

CALC = """\
def add(a, b):
    return a - b


def halve(a):
    return a // 2


def twice(a):
    return a
"""
BASE = {
    "calc.py": CALC,
    "tests/test_calc.py": "import calc\n\n\ndef test_zero():\n    assert calc.add(0, 0) == 0\n",
}
SUM_TEST = "\n\ndef test_sum():\n    assert calc.add(2, 3) == 5\n"
HALF_TEST = "\n\ndef test_half():\n    assert calc.halve(3) == 1.5\n"
TOSS = """\
import os

import pytest


@pytest.mark.parametrize("name", [os.urandom(8).hex()])
def test_toss(name):
    assert name
"""
MERGED = """\
Merge pull request #7 from dev/sign

add gives a wrong sum

add(2, 3) gives -1, and add(2, -3) gives 5: whoever adds two numbers gets their
difference. That has been so since the first release, and nobody seems to have
added anything but zeros to anything so far. It should give the sum of both.

Co-authored-by: Dev <dev@example.org>
"""
SQUASHED = """\
Fix halves of odd numbers (#9)

return a / 2

* wip

* halve(3) was cut to 1

* Fix typo in tests

Signed-off-by: Dev <dev@example.org>
"""


@dataclass
class Past:
    """A work tree in which time goes on by a day with each commit; `commits` are its main line by a word each."""

    folder: Path
    day: int = 0
    commits: dict[str, str] = field(default_factory=dict)

    def git(self, *arguments: str) -> str:
        """Run git in the work tree, without anyone's settings; its output."""
        when = f"2023-05-{self.day + 1:02} 12:00:00 +0200"
        who = {f"GIT_{role}_{key}": "dev" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
        told = {**who, "GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
        alone = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(
            ["git", "-c", "init.defaultBranch=main", *arguments],
            cwd=self.folder,
            env={**os.environ, **told, **alone},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text)
        self.git("add", "-A")

    def commit(self, word: str, message: str, files: dict[str, str]) -> None:
        """A commit on the main line."""
        self.day += 1
        self.write(files)
        self.git("commit", "-q", "-m", message)
        self.commits[word] = self.git("rev-parse", "HEAD")

    def merge(self, word: str, message: str, *steps: tuple[str, dict[str, str]]) -> None:
        """A branch of these commits (message, files), merged."""
        self.git("checkout", "-q", "-b", word)
        for told, files in steps:
            self.commit("", told, files)
        self.day += 1
        self.git("checkout", "-q", "main")
        self.git("merge", "-q", "--no-ff", "-m", message, word)
        self.commits[word] = self.git("rev-parse", "HEAD")

    def change(self, name: str, old: str, new: str) -> dict[str, str]:
        """A file with one text replaced by another."""
        return {name: (self.folder / name).read_text().replace(old, new)}

    def added(self, name: str, text: str) -> dict[str, str]:
        """A file with text at its end."""
        return {name: (self.folder / name).read_text() + text}


def make_past(folder: Path, also: dict[str, str] | None = None) -> Past:
    """Oldest first: root, feature, untested, sign (a merge), half (a squash), large, toss, docs.

    `also` are more files of the root.
    """
    folder.mkdir(parents=True)
    past = Past(folder)
    past.git("init", "-q")
    past.commit("root", "Begin", BASE | (also or {}))
    thrice = past.added("calc.py", "\n\ndef thrice(a):\n    return 3 * a\n")
    past.commit("feature", "Add thrice", thrice | {"tests/test_thrice.py": "def test_nothing():\n    pass\n"})
    past.commit("untested", "Fix twice", past.change("calc.py", "return a\n", "return 2 * a\n"))
    right = past.change("calc.py", "a - b", "a + b")
    past.merge("sign", MERGED, ("Turn the sign", right), ("fixup", past.added("tests/test_calc.py", SUM_TEST)))
    tested = past.added("tests/test_calc.py", HALF_TEST)
    past.commit("half", SQUASHED, past.change("calc.py", "a // 2", "a / 2") | tested)
    many = {f"part{n}.py": f"PART = {n}\n" for n in range(8)}
    past.commit("large", "Fix everything (#12)", many | {"tests/test_parts.py": "def test_none():\n    pass\n"})
    past.commit("toss", "Fix the toss", {"toss.py": "HEADS = True\n", "tests/test_toss.py": TOSS})
    past.commit("docs", "Tell how to add", {"README.md": "Add with add.\n"})
    return past
