"""The git repository of a task: one commit whose id depends on nothing but its files."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from turnwise.errors import TaskError

_WHO = {"NAME": "turnwise", "EMAIL": "turnwise@localhost", "DATE": "2024-01-01T00:00:00+0000"}
# Nothing of the user's own git settings may change what is written.
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in _WHO.items()},
}
# Git cuts the line that it names after a hunk's numbers at 80 bytes, in the middle of a character if need be.
_CUT_CHARACTER = re.compile(r"^(@@ .*?)[\udc80-\udcff]+$", re.MULTILINE)
_PATTERN_CHARACTERS = re.compile(r"([\\*?\[\]!# ])")
_CONFIG = "\n".join(
    [
        "[core]",
        "\trepositoryformatversion = 0",
        "\tfilemode = true",
        "\tbare = false",
        "\tautocrlf = false",
        "[gc]",
        "\tauto = 0",
        "[user]",
        "\tname = turnwise",
        "\temail = turnwise@localhost",
        "",
    ]
)


def git(root: Path, *arguments: str, stdin: bytes = b"") -> str:
    """Run git in `root`, free of the user's settings; its output. Raises TaskError when it fails.

    What is not UTF-8 in it, such as names of files, is escaped as `os.fsdecode` does it.
    """
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", *arguments],
        cwd=root,
        env=_ENVIRONMENT,
        input=stdin,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise TaskError(f"git {arguments[0]} failed in {root}: {reason}")
    return done.stdout.decode("utf-8", "surrogateescape")


def start_repository(root: Path) -> None:
    """Make `root` an empty git repository that takes files byte by byte, whatever a .gitattributes wants."""
    info = root / ".git" / "info"
    for folder in (info, root / ".git" / "objects", root / ".git" / "refs" / "heads"):
        folder.mkdir(parents=True)
    (root / ".git" / "HEAD").write_text("ref: refs/heads/main\n", encoding="utf-8")
    (root / ".git" / "config").write_text(_CONFIG, encoding="utf-8")
    (info / "attributes").write_text("* -text -ident -filter\n", encoding="utf-8")
    (info / "exclude").write_text("__pycache__/\n*.pyc\n", encoding="utf-8")


def commit_all(root: Path) -> str:
    """Commit every file, whatever a .gitignore says, as the repository's only commit; its id."""
    git(root, "add", "-A", "-f", ".")
    git(root, "commit", "-q", "--allow-empty", "-m", "Base")
    return git(root, "rev-parse", "HEAD").strip()


def diff(root: Path, *paths: str) -> str:
    """The working tree's changes to these paths as a unified diff with git's headers."""
    return _CUT_CHARACTER.sub(r"\1", git(root, "diff", "--no-color", "--no-ext-diff", "--no-renames", "--", *paths))


def ignore(root: Path, paths: Iterable[str]) -> None:
    """Make git ignore these paths, relative to the root, whatever characters they hold."""
    with (root / ".git" / "info" / "exclude").open("a", encoding="utf-8", errors="surrogateescape") as exclude:
        # A pattern is a line: "?" stands for the line end in a name.
        patterns = (re.sub(r"[\r\n]", "?", _PATTERN_CHARACTERS.sub(r"\\\1", path)) for path in paths)
        exclude.writelines(f"/{pattern}\n" for pattern in patterns)


def apply(root: Path, patch: str, reverse: bool = False) -> None:
    """Apply a unified diff (or take it back) in a repository's working tree. Raises TaskError when it does not fit."""
    git(root, "apply", "--whitespace=nowarn", *(["-R"] if reverse else []), "-", stdin=patch.encode())
