"""What the shell of a container says to process 1."""

from typing import NamedTuple, Optional


class Reply(NamedTuple):
    """What the shell said: "ready", "done" (with its command's key), "left" (on its way out), "died" (said for it)."""

    kind: str
    status: int
    directory: str
    exports: str
    key: str = ""


def parse_reply(message: bytes) -> Optional[Reply]:
    """One message of the shell; None when it was cut off (its shell was killed while writing it)."""
    head, _, rest = message.decode("utf-8", "surrogateescape").partition("\n")
    kind, status, key = [*head.split(" "), "", ""][:3]
    if not rest.endswith("end") or not status.isdigit():
        return None
    directory, _, exports = rest[: -len("end")].partition("\n")
    return Reply(kind, int(status), directory, exports, key)
