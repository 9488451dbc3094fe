"""From the bytes that a sandbox kept of a command's output to its result."""

from turnwise.types import ExecResult

_TIMED_OUT = 124
_LONGEST_SEQUENCE = 4  # bytes of a UTF-8 character


def result(status: int, parts: tuple[bytes, bytes, int], duration_s: float, timed_out: bool = False) -> ExecResult:
    """The result of a command that ended with a shell's `status` (128 + N for signal N); `parts` are the head of its
    output, the tail, and how many bytes are left out between them.

    No character is cut in two where something is left out.

    >>> result(130, ("né".encode()[:-1], b"t", 7), 0.5)
    ExecResult(output='nt', exit_code=-2, duration_s=0.5, timed_out=False, left_out_bytes=8, head_chars=1)
    """
    head, tail, left_out = parts
    if left_out:
        whole, rest = _without_cut_end(head), _without_cut_start(tail)
        left_out += len(head) - len(whole) + len(tail) - len(rest)
        head, tail = whole, rest
    begin = (head if left_out else head + tail).decode("utf-8", "replace")
    end = tail.decode("utf-8", "replace") if left_out else ""
    code = _TIMED_OUT if timed_out else 128 - status if 128 < status <= 128 + 64 else status
    return ExecResult(begin + end, code, duration_s, timed_out, left_out, len(begin) if left_out else 0)


def shown(path: str) -> str:
    """A path that the sandbox gave, as text that can be written anywhere: bytes that are not UTF-8 are replaced.

    >>> shown("/caf\\udce9") == "/caf\\ufffd"
    True
    """
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _without_cut_end(head: bytes) -> bytes:
    for length in range(1, min(_LONGEST_SEQUENCE, len(head) + 1)):
        lead = head[-length]
        if lead & 0xC0 != 0x80:  # no continuation
            wanted = 4 if lead >= 0xF0 else 3 if lead >= 0xE0 else 2 if lead >= 0xC0 else 1
            return head[:-length] if wanted > length else head
    return head


def _without_cut_start(tail: bytes) -> bytes:
    for start in range(min(_LONGEST_SEQUENCE, len(tail))):
        if tail[start] & 0xC0 != 0x80:
            return tail[start:]
    return tail
