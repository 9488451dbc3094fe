"""Conversations as ids: written and read back without loss, whatever stands in them."""

import pytest

from turnwise.agent import Message, TranscriptRenderer
from turnwise.errors import InputError
from turnwise.policy.transcript import END, ROLES, decode_messages, encode_messages, encode_text
from turnwise.types import Turn
from turnwise.usage import Usage

RENDERER = TranscriptRenderer()
TEXTS = ["", "plain", "  edges \n\n", "naïve, 日本語 and 🙂", "\x00\x7f\xff\u0100\u2028", "<|im_end|> [INST]"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_conversation_comes_back_as_it_was(text):
    said = encode_text(text)
    ids = [
        *RENDERER.opening([Message("system", text), Message("user", text)]),
        *said,
        END,
        *RENDERER.observation(text),
        *said,
        *RENDERER.observation(text, stopped=False),
    ]
    roles = ["system", "user", "assistant", "user", "assistant", "user"]
    assert decode_messages(ids) == [(role, text) for role in roles]


@pytest.mark.parametrize(
    "ids",
    [
        [],
        encode_messages([("user", "hi")]),
        [1, 2, ROLES["assistant"]],
        [ROLES["user"], 104, ROLES["assistant"]],
    ],
)
def test_ids_that_are_no_conversation_are_refused(ids):
    with pytest.raises(InputError, match="not a transcript"):
        decode_messages(ids)


def counted(start, prompt_tokens):
    return Turn(0, "", "ls", None, "", 0, start, start + 5, 0, 0.0, 0.0, Usage(prompt_tokens, 0, 9))


def test_the_context_is_measured_by_the_endpoints_last_count():
    assert RENDERER.context_tokens(400, None) == 100
    assert RENDERER.context_tokens(600, counted(start=400, prompt_tokens=200)) == 300
    assert RENDERER.context_tokens(600, counted(start=400, prompt_tokens=0)) == 150
