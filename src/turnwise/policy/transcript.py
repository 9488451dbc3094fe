"""Conversations as ids that can be read back: what stands for tokens where an endpoint keeps its own to itself.

An endpoint takes messages, while a policy takes ids. So a conversation is written as the UTF-8 bytes of its messages
(ids 0-255), each between the mark of its role and END; `decode_messages` reads them back as they were, but for lone
surrogates, which UTF-8 cannot say: they become "?".
"""

from collections.abc import Iterable, Iterator, Sequence

from turnwise.errors import InputError

END = 256
ROLES = {"system": 257, "user": 258, "assistant": 259}
_NAMES = {mark: role for role, mark in ROLES.items()}


def encode_text(text: str) -> list[int]:
    """The ids of a text; what UTF-8 cannot say (a lone surrogate) becomes "?"."""
    return list(text.encode("utf-8", "replace"))


def decode_text(token_ids: Iterable[int]) -> str:
    """The text that the byte ids say; marks are passed over."""
    return bytes(each for each in token_ids if each < END).decode("utf-8", "replace")


def encode_messages(messages: Iterable[tuple[str, str]]) -> list[int]:
    """The ids of whole (role, content) messages.

    >>> encode_messages([("user", "hi")])
    [258, 104, 105, 256]
    """
    return [each for role, content in messages for each in (ROLES[role], *encode_text(content), END)]


def decode_messages(token_ids: Sequence[int]) -> list[tuple[str, str]]:
    """The (role, content) messages of a conversation that ends where the assistant's next response begins.

    Raises InputError for ids that are no such conversation.

    >>> decode_messages([*encode_messages([("user", "hi")]), ROLES["assistant"]])
    [('user', 'hi')]
    """
    if not token_ids or token_ids[-1] != ROLES["assistant"]:
        raise InputError("not a transcript: it does not end where a response is due")
    return list(_messages(token_ids[:-1]))


def _messages(token_ids: Sequence[int]) -> Iterator[tuple[str, str]]:
    start = 0
    while start < len(token_ids):
        if token_ids[start] not in _NAMES:
            raise InputError(f"not a transcript: id {token_ids[start]} at {start} opens no message")
        try:
            stop = token_ids.index(END, start)
        except ValueError:
            raise InputError(f"not a transcript: the message at {start} has no end") from None
        yield _NAMES[token_ids[start]], decode_text(token_ids[start + 1 : stop])
        start = stop + 1
