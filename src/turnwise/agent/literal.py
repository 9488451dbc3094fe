"""Tokens of text in which parts are literal: whatever they say, none of it becomes an added token."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from turnwise.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LiteralEncoder:
    """Encodes pieces of a conversation, the template's words with added tokens and others' words without.

    Added tokens are all that tokenizers keep beside their vocabulary's own pieces, special or not; those of nothing but
    whitespace stand for that everywhere. Raises `CheckpointError` where the tokenizer is not a fast one.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        from tokenizers import Tokenizer

        if not tokenizer.is_fast:
            raise CheckpointError("the checkpoint's tokenizer has no fast form (tokenizer.json)")
        self._tokenizer = tokenizer
        self._added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
        plain = json.loads(tokenizer.backend_tokenizer.to_str())
        self._plain = Tokenizer.from_str(json.dumps(plain | {"added_tokens": [], "post_processor": None}))

    def encode(self, pieces: Sequence[tuple[str, bool]]) -> list[int]:
        """The ids of the pieces, tokenized as one text; each comes with whether it is literal."""
        spans, at = [], 0
        for piece, literal in pieces:
            spans += [(at, at + len(piece))] if literal else []
            at += len(piece)
        return self._encode("".join(piece for piece, _ in pieces), spans)

    def _encode(self, text: str, literal: list[tuple[int, int]]) -> list[int]:
        """The text's ids, tokenized apart around each added token that it would make of something literal."""
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        tokens = list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))
        found = [_core(text, span) for index, span in tokens if index in self._added]
        found = [span for span in found if _meets(span, literal)]
        if not found:
            return [index for index, _ in tokens]
        token_ids: list[int] = []
        at = 0
        for start, end in [*found, (len(text), len(text))]:
            inside = [(max(a - at, 0), b - at) for a, b in literal if b > at and a < start]
            token_ids += self._encode(text[at:start], inside) if start > at else []
            # In two, because some vocabularies hold the whole as a piece of their own, too.
            token_ids += [*self._of(text[start : start + 1]), *self._of(text[start + 1 : end])]
            at = end
        return token_ids

    def _of(self, text: str) -> list[int]:
        return list(self._plain.encode(text, add_special_tokens=False).ids) if text else []


def _core(text: str, span: tuple[int, int]) -> tuple[int, int]:
    """The span without the whitespace around, which a token may take with it."""
    words = text[span[0] : span[1]]
    start = span[0] + len(words) - len(words.lstrip())
    return start, start + len(words.strip())


def _meets(span: tuple[int, int], literal: list[tuple[int, int]]) -> bool:
    return any(span[0] < end and start < span[1] for start, end in literal)
