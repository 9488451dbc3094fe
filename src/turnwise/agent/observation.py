"""The text of observations: what the model reads after each command. The words here are what a model is trained on.

An observation is the command's output, then notes in square brackets where something is to be said about it, then the
prompt line. It is kept short: every token of it is read again in all later turns.
"""

from dataclasses import dataclass

from turnwise.types import ExecResult, FormatError

FORMAT_ERROR_TEXTS = {
    FormatError.NO_COMMAND: "[format error: no ```command block in the reply; end it with exactly one]",
    FormatError.MULTIPLE_COMMANDS: "[format error: several ```command blocks in the reply, none run; give exactly one]",
}


@dataclass(frozen=True)
class Observation:
    """What the environment answered to one response.

    `command` is None exactly when `format_error` is set; `exit_code` is None when nothing was run. `exec_s` is the time
    spent in the sandbox.
    """

    text: str
    command: str | None
    format_error: FormatError | None
    exit_code: int | None
    submitted: bool
    exec_s: float


def prompt_line(workdir: str, open_file: str | None) -> str:
    """The last line of every observation; the open file stands relative to the directory where it lies under it.

    >>> prompt_line("/testbed", "/testbed/toolz/itertoolz.py")
    '(cwd: /testbed, open: toolz/itertoolz.py)'
    >>> prompt_line("/testbed", None)
    '(cwd: /testbed, open: none)'
    """
    shown = "none" if open_file is None else open_file.removeprefix(workdir.rstrip("/") + "/")
    return f"(cwd: {workdir}, open: {shown})".replace("\n", "?")


def shortened(result: ExecResult, max_chars: int) -> str:
    """The result's output, or where that is longer than `max_chars` its head and tail with a line between that says so.

    Counts characters; bytes where the sandbox has not kept all of them.

    >>> print(shortened(ExecResult("a" * 300 + "b" * 300, 0, 0.1), 20))
    aaaaaaaaaa
    [output cut: 580 of 600 characters left out in the middle]
    bbbbbbbbbb
    """
    text = result.output.rstrip("\n")
    if not result.left_out_bytes:
        if len(text) <= max_chars:
            return text
        head, tail = text[: max_chars - max_chars // 2], text[len(text) - max_chars // 2 :]
        return _joined(head, f"{len(text) - max_chars:,} of {len(text):,} characters", tail)
    total = len(result.output.encode()) + result.left_out_bytes
    head, tail = text[: result.head_chars], text[result.head_chars :]
    head, tail = head[: max_chars - max_chars // 2], tail[max(0, len(tail) - max_chars // 2) :]
    return _joined(head, f"{total - len(head.encode()) - len(tail.encode()):,} of {total:,} bytes", tail)


def _joined(head: str, left_out: str, tail: str) -> str:
    return f"{head}\n[output cut: {left_out} left out in the middle]\n{tail}"


def describe(result: ExecResult, max_chars: int, timeout_s: float) -> str:
    """The observation of a command that was run, without the prompt line; never empty.

    >>> describe(ExecResult("", 1, 0.1), 1000, 60)
    '[exit code 1]'
    """
    parts = [shortened(result, max_chars)] if result.output.strip("\n") else []
    if result.timed_out:
        parts.append(f"[stopped: still running after {timeout_s:g} seconds]")
    elif result.exit_code != 0:
        parts.append(f"[exit code {result.exit_code}]")
    return "\n".join(parts) or "[no output]"
