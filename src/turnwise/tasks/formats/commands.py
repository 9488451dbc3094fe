"""Shell commands of rows, in the form that serves without the row's container as well as in it."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field

_SETUP_PY = re.compile(r"\bpython3? setup\.py (install|develop)\b")
_PLAIN_PIP = re.compile(r"(\bpip3? install\b[^;&|]*?) (['\"]?)\.(?=[\s'\"\[;&]|$)")
_EDITABLE = re.compile(r"\binstall\b.* (-[a-z]*e|--editable)\b")
_INSTALLS = re.compile(r"\bpip3? install\b|\bsetup\.py\b|\bmake init\b")
_TOX = re.compile(r"^tox --current-env -e\s?\S+ (?:-v )?-- ?", re.MULTILINE)
_LOCALE = re.compile(r"\blocale-gen\b|/etc/locale\.gen\b|apt-get install -y locales\b")
_MAKES_NO_ENVIRONMENT = re.compile(
    r"#!|set -|source |conda activate |cd \S+$|git (config|status|show|checkout|apply|-c \S+ diff)\b|echo |: '"
)
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?$")
_START, _END = ">>>>> Start Test Output", ">>>>> End Test Output"


def editable(command: str) -> str:
    """The command with every installation of the repository made an editable one.

    What is installed is read-only and shared by all episodes of a task; only an editable installation shows a patch.

    >>> editable("python -m pip install --no-deps .[test]")
    'python -m pip install --no-deps -e .[test]'
    """
    command = _SETUP_PY.sub("python -m pip install -e .", command)
    return command if _EDITABLE.search(command) else _PLAIN_PIP.sub(r"\1 -e \2.", command)


def without_tox(command: str) -> str:
    """The command that `tox --current-env` ends in: pytest in the environment at hand, its summary on.

    tox hides the caller's environment from the tests and must be installed itself; sphinx alone is run by it.
    """
    return _TOX.sub("pytest -rA --durations 25 ", command)


def portable(environment: dict[str, str]) -> dict[str, str]:
    """Variables with a generated locale replaced by C.UTF-8, which every system has without root."""
    return {name: re.sub(r"^en_US\.(UTF-8|utf8)$", "C.UTF-8", value) for name, value in environment.items()}


@dataclass(frozen=True)
class EvalScript:
    """What a SWE-bench eval_script says, apart from the bookkeeping around it.

    >>> script = ": '>>>>> Start Test Output'\\npytest -rA t.py\\n: '>>>>> End Test Output'"
    >>> parse_eval_script(script).command
    'pytest -rA t.py'
    """

    command: str
    pre_install: tuple[str, ...] = ()
    install: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)


def parse_eval_script(script: str) -> EvalScript:
    """Read an eval_script (swebench's harness writes them; its markers are what its grading looks for).

    Before the test patch come environment variables, edits and the installation; what comes after it, such as a
    build, belongs to the test command. Raises ValueError where the markers are missing.
    """
    lines = list(_outside_heredocs(script.split("\n")))
    start = next((i for i, line in enumerate(lines) if _START in line), None)
    end = next((i for i, line in enumerate(lines) if _END in line), None)
    if start is None or end is None or not any(line.strip() for line in lines[start + 1 : end]):
        raise ValueError(f"has no test command between '{_START}' and '{_END}'")
    patched = next((i for i, line in enumerate(lines) if line.startswith(("git checkout ", "git apply "))), start)
    before, env, expanded = _split_exports(_working(lines[:patched]))
    told = [command for command in before if not _LOCALE.search(command)]
    installs = [command for command in told if _INSTALLS.search(command)]
    install = tuple(editable(command) for command in installs)
    pre_install = tuple(command for command in told if command not in installs)
    command = [*expanded, *_working(lines[patched:start]), *lines[start + 1 : end]]
    return EvalScript(without_tox("\n".join(command).strip()), pre_install, install, portable(env))


def _outside_heredocs(lines: Iterable[str]) -> Iterable[str]:
    until: str | None = None
    for line in lines:
        if until is None:
            yield line
            opened = _HEREDOC.search(line)
            until = opened.group(1) if opened else None
        elif line.strip() == until:
            until = None


def _working(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if line.strip() and not _MAKES_NO_ENVIRONMENT.match(line)]


def _split_exports(commands: Iterable[str]) -> tuple[list[str], dict[str, str], list[str]]:
    """(commands that set no variable, plain variables, exports that the shell must expand)."""
    others: list[str] = []
    env: dict[str, str] = {}
    expanded: list[str] = []
    for command in commands:
        if not command.startswith("export "):
            others.append(command)
        elif "$" in command or "`" in command:
            expanded.append(command)
        else:
            env |= dict(word.split("=", 1) for word in shlex.split(command)[1:] if "=" in word)
    return others, env, expanded
