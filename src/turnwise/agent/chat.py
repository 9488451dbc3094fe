"""Conversations as token ids, for any Hugging Face tokenizer whose chat template is prefix-stable.

An episode is one flat sequence: the opening, then in turn what the policy sampled, as it was sampled, and what the
template puts between that and the next response. For this to be the conversation that the template means, a longer
conversation must be rendered as a continuation of the shorter one; the constructor tries it and refuses a template that
rewrites what came before. Whitespace at the edges of a response, which several templates trim, stays as sampled.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from turnwise.agent.messages import Message, Role
from turnwise.errors import CheckpointError
from turnwise.types import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "WORDS-OF-THE-ASSISTANT"
_DATE = "26 Jul 2024"  # Llama 3.1's own fallback for today's: what a run renders is the same on every day
_OPENING_PROBE = (Message("system", "Rules of the probe."), Message("user", "Issue of the probe:\n\n    x = 1"))
# What models and commands really say: edges of whitespace, reasoning tags, other scripts, template syntax.
_TURN_PROBES = (
    ("Plain words.", "output"),
    ("  Spaces around.  ", "  indented output\n"),
    ("\n\nNewlines around.\n\n", "\n\nnewlines around\n\n"),
    ("<think>\nA thought.\n</think>\n\nThen a word.\n```command\nls\n```", "(cwd: /testbed, open: none)"),
    ("naïve, 日本語 and 🙂", "more of it: 日本語 🙂"),
    ("Tabs\tand\n    indentation, {{ braces }} {% raw %} [INST] </s", "{{ braces }} [/INST"),
    ("The last one.", "done"),
)
_TEXT_PROBE = """def f(a, *b):
        return {'k': a[0] != b, "q": ~a}  # 100%
\tx = `y` @ z; _ = a | b ^ $c < d > e \\ &


"""


@dataclass(frozen=True)
class _Layout:
    """How the scaffold's messages are told to a template: the system prompt's place and the role of observations."""

    fold_system: bool
    observation_role: Role


# In the order they are tried. Observations are the user's words; a template that drops the reasoning of earlier turns
# at every new word of the user (Qwen3's) may keep it when they are a tool's.
_LAYOUTS = (_Layout(False, "user"), _Layout(True, "user"), _Layout(False, "tool"), _Layout(True, "tool"))


class ChatRenderer:
    """Renders openings and observations with a tokenizer's chat template, and decodes what was sampled.

    Raises `CheckpointError` with the reason where the tokenizer has no chat template, the template is not prefix-stable
    or marks no end of a turn, or the tokenizer loses text.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise CheckpointError(
                "the checkpoint's tokenizer has no chat template; put one beside it (chat_template.jinja)"
            )
        self._tokenizer = tokenizer
        self._layout = _stable_layout(tokenizer)
        self._control_tokens = sorted(
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special
        )
        self.stop_token_ids = self._find_stop_tokens()
        self._check_tokens()

    def opening(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of the opening messages and of the generation prompt."""
        rendered = _render(self._tokenizer, self._layout, messages)
        return self._encode(rendered, [message.content for message in messages])

    def observation(self, text: str, stopped: bool = True) -> list[int]:
        """Everything between the last sampled token and the next response, around the observation `text`.

        A response that stopped ends with its own, sampled, stop token; one cut short (`stopped=False`) is ended here.
        """
        token_ids = self._encode(_between(self._tokenizer, self._layout, text), [text])
        return token_ids[1:] if stopped else token_ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a sampled response, without the stop token that ended it."""
        ends = len(token_ids) > 0 and token_ids[-1] in self.stop_token_ids
        return self._text(token_ids[:-1] if ends else token_ids)

    def context_tokens(self, length: int, last: Turn | None) -> int:
        """`length`: these ids are the model's own tokens."""
        return length

    def _encode(self, rendered: str, contents: Iterable[str]) -> list[int]:
        """Tokens of a rendering in which control tokens inside the `contents` are plain text.

        Such a token is cut after its first character and the parts are tokenized on their own: no output of a command
        can end a turn or open another.
        """
        ends = [0, *self._cuts(rendered, contents), len(rendered)]
        parts = (self._tokenizer.encode(rendered[start:end], add_special_tokens=False) for start, end in pairwise(ends))
        return [token_id for part in parts for token_id in part]

    def _cuts(self, rendered: str, contents: Iterable[str]) -> list[int]:
        cuts: set[int] = set()
        at = 0
        for content in (content.strip() for content in contents):
            start = rendered.find(content, at)
            if start < 0:
                continue
            at = start + len(content)
            for token in self._control_tokens:
                found = rendered.find(token, start, at)
                while found >= 0:
                    cuts.add(found + 1)
                    found = rendered.find(token, found + 1, at)
        return sorted(cuts)

    def _text(self, token_ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    def _find_stop_tokens(self) -> tuple[int, ...]:
        """What the template puts right behind a response, and the tokenizer's end of sequence."""
        between = _between(self._tokenizer, self._layout, "output")
        first = self._tokenizer.encode(between, add_special_tokens=False)[0]
        if first not in self._tokenizer.added_tokens_decoder:
            raise CheckpointError(
                f"the chat template marks no end of the assistant's turn with a token: {between[:40]!r}"
            )
        eos = self._tokenizer.eos_token_id
        return (first,) if eos is None or eos == first else (first, eos)

    def _check_tokens(self) -> None:
        """Refuse a tokenizer whose tokens do not say what the template rendered."""
        back = self._text(self._encode(_TEXT_PROBE, []))
        if back.lstrip(" ") != _TEXT_PROBE:
            raise CheckpointError(f"the tokenizer loses text: it gives {back!r} for {_TEXT_PROBE!r}")
        response, output = _TURN_PROBES[0]
        messages = [*_OPENING_PROBE, Message("assistant", response), Message(self._layout.observation_role, output)]
        tokens = [*self.opening(_OPENING_PROBE), *self._encode(response, []), *self.observation(output, stopped=False)]
        rendered, decoded = _render(self._tokenizer, self._layout, messages), self._text(tokens)
        # Sentencepiece tokenizers put a space before each part, which the model never minds.
        if decoded.replace(" ", "") != rendered.replace(" ", ""):
            raise CheckpointError(f"the tokens of a conversation say {decoded!r}, its chat template {rendered!r}")


def _stable_layout(tokenizer: "PreTrainedTokenizerBase") -> _Layout:
    """The first layout under which the template is prefix-stable; raises `CheckpointError` where there is none."""
    reasons = []
    for layout in _LAYOUTS:
        reason = _instability(tokenizer, layout)
        if reason is None:
            return layout
        reasons.append(reason)
    raise CheckpointError(f"the chat template cannot be used for episodes of many turns: {reasons[0]}")


def _instability(tokenizer: "PreTrainedTokenizerBase", layout: _Layout) -> str | None:
    """Why the template is not prefix-stable under this layout; None when it is."""
    from jinja2 import TemplateError

    try:
        return _first_change(tokenizer, layout)
    except (TemplateError, TypeError, KeyError, ValueError) as error:
        return f"it refuses the conversation: {error}"


def _first_change(tokenizer: "PreTrainedTokenizerBase", layout: _Layout) -> str | None:
    messages = list(_OPENING_PROBE)
    so_far = _render(tokenizer, layout, messages)
    if any(message.content not in so_far for message in messages):
        return "it leaves out the system prompt or the first message"
    for response, output in _TURN_PROBES:
        messages += [Message("assistant", response), Message(layout.observation_role, output)]
        longer = _render(tokenizer, layout, messages)
        if not longer.startswith(so_far):
            return f"a new turn changes the text before it, {_difference(so_far, longer)}"
        added = longer[len(so_far) :]
        end = _end_of_words(added, response)
        if end is None:
            return f"it changes the assistant's words {response!r} into {added[: len(response) + 20]!r}"
        between = _between(tokenizer, layout, output)
        if added[end:].lstrip() != between or output.strip() not in between:
            return f"what it puts after a response varies: {added[end:]!r} or {between!r}"
        so_far = longer
    return None


def _difference(before: str, after: str) -> str:
    """Where two texts part, for a message."""
    at = next((index for index, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(after))
    return f"from {before[max(at - 20, 0) : at + 40]!r} to {after[max(at - 20, 0) : at + 40]!r}"


def _end_of_words(text: str, words: str) -> int | None:
    """Where `words` end at the start of `text`, whitespace aside; None when the text starts with something else."""
    at = 0
    for char in (char for char in words if not char.isspace()):
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text) or text[at] != char:
            return None
        at += 1
    return at


def _between(tokenizer: "PreTrainedTokenizerBase", layout: _Layout, output: str) -> str:
    """What the template puts between the assistant's last word and its next response."""
    messages = [*_OPENING_PROBE, Message("assistant", _MARK), Message(layout.observation_role, output)]
    rendered = _render(tokenizer, layout, messages)
    if _MARK not in rendered:
        raise ValueError("the assistant's words are missing")
    return rendered.partition(_MARK)[2].lstrip()


def _render(tokenizer: "PreTrainedTokenizerBase", layout: _Layout, messages: Sequence[Message]) -> str:
    """The template's text, with its generation prompt."""
    if layout.fold_system and messages[0].role == "system":
        first = Message("user", f"{messages[0].content}\n\n{messages[1].content}")
        messages = [first, *messages[2:]]
    return str(
        tokenizer.apply_chat_template(
            [message.as_dict() for message in messages],
            tokenize=False,
            add_generation_prompt=True,
            date_string=_DATE,
        )
    )
