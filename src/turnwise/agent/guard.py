"""Which commands would wait for a keyboard that is not there. When in doubt, a command is let through."""

import re
import shlex
from collections.abc import Iterator, Sequence

from turnwise.agent.parsing import without_heredocs

_ALWAYS = frozenset(
    {
        *("vi", "vim", "view", "nvim", "nano", "pico", "emacs", "less", "more", "most", "man", "info", "watch", "tmux"),
        *("screen", "tig", "htop", "ssh", "telnet", "ftp", "sftp", "ipython", "bpython", "pdb", "pdb3", "ipdb", "pudb"),
    }
)
_REPLS = re.compile(r"(?:python|pypy)(?:\d+(?:\.\d+)*)?|i?sh|bash|dash|zsh|node|irb|ghci|lua|julia|R")
_PYTHON = re.compile(r"(?:python|pypy)(?:\d+(?:\.\d+)*)?")
_DEBUGGER_MODULES = frozenset({"pdb", "ipdb", "pudb", "IPython"})
_REPL_VALUE_OPTIONS = frozenset({"-W", "-X", "-O", "-o", "--rcfile", "--init-file"})
_INFORMATIVE = frozenset({"-V", "-VV", "--version", "-h", "--help", "-?", "--help-all"})
_PREFIX_WORDS = frozenset(
    {
        *("sudo", "env", "nohup", "exec", "time", "command", "nice", "builtin"),
        *("then", "do", "else", "!", "{", "if", "while", "until", "elif"),
    }
)
_ASSIGNMENT = re.compile(r"\w+=.*", re.DOTALL)
_LONGEST = 20_000  # characters; the time that shlex takes for a word grows with the square of its length
_SEPARATORS = re.compile(r"[;&|()\n]+")


def refusal(command: str) -> str | None:
    """The observation of a command that is not to be run; None when it is.

    >>> refusal("less setup.py")
    '[not run: less is interactive; there is no keyboard]'
    """
    if "\0" in command:
        return "[not run: the command holds a NUL character]"
    program = interactive_program(command)
    return None if program is None else f"[not run: {program} is interactive; there is no keyboard]"


def interactive_program(command: str) -> str | None:
    """The interactive program that `command` would start, as a user names it; None when there is none.

    A very long command is not looked at, but for the bodies of its heredocs, which are never looked at.

    >>> interactive_program("cd toolz && vim itertoolz.py")
    'vim'
    >>> interactive_program("python - <<END")
    """
    said = without_heredocs(command)
    if len(said) > _LONGEST:
        return None
    try:
        parts = list(_simple_commands(said))
    except ValueError:  # quotes that do not close: the shell will say so
        return None
    for words, has_input in parts:
        name = _interactive(_without_prefixes(words), has_input)
        if name is not None:
            return name
    return None


def _simple_commands(command: str) -> Iterator[tuple[list[str], bool]]:
    """The words of each simple command, and whether something is fed to its stdin."""
    lexer = shlex.shlex(command.replace("\\\n", " "), posix=True, punctuation_chars=";&|()<>\n")
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    has_input = False
    for token in lexer:
        if _SEPARATORS.fullmatch(token):
            yield words, has_input
            words, has_input = [], token == "|" or token == "|&"
        elif set(token) <= set("<>&|"):
            has_input = has_input or token.startswith("<")
        else:
            words.append(token)
    yield words, has_input


def _without_prefixes(words: list[str]) -> list[str]:
    start = 0
    while start < len(words) and (words[start] in _PREFIX_WORDS or _ASSIGNMENT.fullmatch(words[start])):
        start += 1
    return words[start:]


def _interactive(words: Sequence[str], has_input: bool) -> str | None:
    if not words:
        return None
    name, arguments = words[0].rpartition("/")[2], words[1:]
    if _INFORMATIVE.intersection(arguments[:1]):
        return None
    if name in _ALWAYS and "--batch" not in arguments:
        return name
    if name == "top" and not any(argument.startswith("-") and "b" in argument for argument in arguments):
        return name
    if name == "git":
        return _interactive_git(arguments)
    if _REPLS.fullmatch(name) and not has_input:
        return _interactive_repl(name, arguments)
    return None


def _interactive_repl(name: str, arguments: Sequence[str]) -> str | None:
    """An interpreter with neither a script, a module, a program text nor input; or one that runs a debugger."""
    skip = False
    for index, argument in enumerate(arguments):
        if skip:
            skip = False
        elif argument in _REPL_VALUE_OPTIONS:
            skip = True
        elif argument == "-m" and _PYTHON.fullmatch(name):
            module = arguments[index + 1] if index + 1 < len(arguments) else ""
            return f"{name} -m {module}" if module in _DEBUGGER_MODULES else None
        elif argument == "-i":
            return f"{name} -i"
        elif not argument.startswith("-") or _gives_program(argument):
            return None
    return name


def _gives_program(option: str) -> bool:
    return option in {"-", "-e", "-p", "-s", "--eval"} or (not option.startswith("--") and option.endswith("c"))


def _interactive_git(arguments: Sequence[str]) -> str | None:
    """`git rebase -i`, and the patch and interactive modes of `git add` and its like."""
    subcommand = next((word for word in arguments if not word.startswith("-")), "")
    asks = {
        "rebase": {"-i", "--interactive"},
        "add": {"-i", "--interactive", "-p", "--patch", "-e", "--edit"},
        "checkout": {"-p", "--patch"},
        "restore": {"-p", "--patch"},
        "reset": {"-p", "--patch"},
        "commit": {"-p", "--patch", "--interactive"},
    }.get(subcommand, set())
    option = next((word for word in arguments if word in asks), None)
    return None if option is None else f"git {subcommand} {option}"
