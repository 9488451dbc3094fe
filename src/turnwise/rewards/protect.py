"""What of a patch reaches the hidden tests: all of it, but for the files that steer tests.

The hidden tests are brought before the patch is applied, and the patch is applied without the files named here, so that
nothing it holds can take their place. Paths are matched by git itself, as it reads them from the patch.
"""

import fnmatch
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from turnwise.rewards.command import find_pytest
from turnwise.tasks import TEST_FOLDERS
from turnwise.types import Task

# Compiled files, which Python trusts without looking at the source beside them; what Python runs at its start; metadata
# of installed packages, where pytest looks for plugins, whatever the case of its folders' names.
NEVER = (
    "*.py[co]",
    "*.so",
    "*sitecustomize.py",
    "*usercustomize.py",
    "*sitecustomize/*",
    "*usercustomize/*",
    "*.pth",
    "*.[eE][gG][gG]-[iI][nN][fF][oO]/*",
    "*.[dD][iI][sS][tT]-[iI][nN][fF][oO]/*",
    "*.egg-link",
)
CONFIGURATION = (
    "conftest.py",
    "pytest.ini",
    ".pytest.ini",
    "pytest.toml",
    ".pytest.toml",
    "tox.ini",
    "setup.cfg",
    "pyproject.toml",
)
# What tests compare with may lie beside their own folders; anywhere else such a folder is source.
EXPECTED_FOLDERS = ("test_data", "testdata", "golden", "snapshots", "__snapshots__", "fixtures", "cassettes")
# Parts of a test program that lie outside those folders: SymPy's before 1.6, in sympy/utilities.
RUNNER_FILES = ("runtests.py", "pytest.py", "randtest.py")
_PYTHON = re.compile(r"(?:.*/)?python[\d.]*")
_NO_PYTHON = ("*[!y]", "*[!p]y")  # patterns of what does not end in "py": git's have no negation of their own
_CHANGED_FOLDER = re.compile(r"\bcd ([\w.][\w./-]*)")
TOUCHED = re.compile(
    r"^(?:\+\+\+|---|rename from|rename to|copy to) (.+?)(?:\t.*|\s*)$"
    r"|^diff --git (?:a/.+?|\"a/.+?\") (b/.+|\"b/.+\")$",
    re.M,
)
RENAMED = re.compile(r"^(?:rename|copy) from (.+)\n(?:rename|copy) to (.+)$", re.M)


def touched_files(patch: str) -> set[str]:
    """Paths that a unified diff names, old and new, those of binary files and mode changes too.

    >>> sorted(touched_files("--- a/pkg/one.py\\n+++ b/pkg/one.py\\n@@ -1 +1 @@\\n-x\\n+y\\n"))
    ['pkg/one.py']
    """
    named = {_unquoted(text or binary) for text, binary in TOUCHED.findall(patch)}
    return {re.sub("^[ab]/", "", name) for name in named if name != "/dev/null"}


def _unquoted(name: str) -> str:
    """A path, which git puts in quotes where it holds more than plain letters."""
    if not name.startswith('"'):
        return name
    return name.strip('"').encode().decode("unicode_escape").encode("latin-1").decode(errors="replace")


def apply_options(task: Task, patch: str) -> list[str]:
    """Options of `git apply` that leave out of the patch what would steer the tests.

    Left out: the hidden test files and what lies in their test folders, data in a folder of `EXPECTED_FOLDERS` beside
    `tests` at the repository's root, every conftest.py and pytest configuration file, and `NEVER`; where the
    repository's own program runs the tests, also that program with its folder, every test folder and `RUNNER_FILES`. A
    file that the gold patch itself changes is source, wherever it lies, unless it is configuration.
    """
    gold = sorted(path for path in touched_files(task.patch) if not _is_configuration(path))
    options = [f"--exclude={pattern}" for pattern in NEVER]
    options += [f"--include={_literal(path)}" for path in gold]
    options += [f"--exclude={pattern}" for pattern in _protected_patterns(task)]
    moved = [_unquoted(new) for old, new in RENAMED.findall(patch) if _is_left_out(options, _unquoted(old))]
    return [*(f"--exclude={_literal(path)}" for path in moved), *options, "--include=*"]


def _is_left_out(options: Iterable[str], path: str) -> bool:
    """What git says to a path by these options. It asks them only for the name that a moved file has afterwards."""
    for option in options:
        word, pattern = option.split("=", 1)
        if fnmatch.fnmatchcase(path, re.sub(r"\\(.)", r"[\1]", pattern)):
            return word == "--exclude"
    return False


def configuration_of(task: Task, patch: str) -> str:
    """The parts of the gold patch that change pytest configuration files which `patch` changes too.

    Such a file is taken as the task's own fix leaves it: pytest may need it so, and no other version may steer.
    """
    both = {path for path in touched_files(patch) & touched_files(task.patch) if _is_configuration(path)}
    parts = re.split(r"^(?=diff --git )", task.patch, flags=re.M)
    return "".join(part for part in parts if touched_files(part) & both)


def hidden_files(task: Task) -> set[str]:
    """The files of the hidden tests: those that the row's test ids name and those that its test patch touches."""
    call = None if task.test_run is None else find_pytest(task.test_run.command)
    moved = None if call is None else _CHANGED_FOLDER.search(call.before)
    folder = PurePosixPath(moved[1] if moved else ".")
    named = {str(folder / path) for path in task.test_files if "/" in path or path.endswith(".py")}
    return named | touched_files(task.test_patch)


def _protected_patterns(task: Task) -> Iterable[str]:
    for name in CONFIGURATION:
        yield from (name, f"*/{name}")
    folders = hidden_folders(task)
    if any("/" not in folder for folder in folders):
        yield from (f"{folder}/{data}" for folder in EXPECTED_FOLDERS for data in _NO_PYTHON)
    for path in sorted(hidden_files(task)):
        literal = _literal(path)
        yield from (literal, f"{literal}/*", f"{literal.removesuffix('.py')}/*")
        yield from (_literal(str(parent)) for parent in PurePosixPath(path).parents if str(parent) != ".")
    yield from (f"{_literal(folder)}/*" for folder in sorted(folders))
    if task.test_run is not None and find_pytest(task.test_run.command) is None:
        yield from _runner_patterns(task.test_run.command)


def _runner_patterns(command: str) -> Iterable[str]:
    """What may be a part of the program of the repository that runs the tests."""
    for folder in TEST_FOLDERS:
        yield from (f"{folder}/*", f"*/{folder}/*")
    for name in RUNNER_FILES:
        yield from (name, f"*/{name}")
    words = [word.removeprefix("./") for word in re.split(r"[\s;&|'\"()]+", command) if word and word[0] != "-"]
    yield from (_literal(word) for word in sorted(set(words)))
    program = next((word for word in words if "=" not in word and not _PYTHON.fullmatch(word)), "")
    if "/" in program and not program.startswith("/"):  # Python looks there first for what the program imports
        yield f"{_literal(str(PurePosixPath(program).parent))}/*"


def hidden_folders(task: Task) -> set[str]:
    """The outermost test folder of each hidden test file that lies in one.

    >>> from turnwise.tasks import frozen_path, read_tasks
    >>> sorted(hidden_folders(read_tasks(frozen_path())[0]))
    ['tests']
    """
    return {str(folder) for path in hidden_files(task) if (folder := _test_folder(PurePosixPath(path))) is not None}


def _test_folder(path: PurePosixPath) -> PurePosixPath | None:
    folders = [parent for parent in reversed(path.parents) if parent.name in TEST_FOLDERS]
    return folders[0] if folders else None


def _is_configuration(path: str) -> bool:
    return PurePosixPath(path).name in CONFIGURATION


def _literal(path: str) -> str:
    """A pattern that matches this very path."""
    return re.sub(r"([\\*?\[])", r"\\\1", path)
