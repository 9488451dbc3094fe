"""Conversations as token ids, for any Hugging Face tokenizer whose chat template is prefix-stable.

An episode is one flat sequence: the opening, then in turn what the policy sampled, as it was sampled, and what the
template puts between that and the next response. For this to be the conversation that the template means, a longer
conversation must be rendered as a continuation of the shorter one; the constructor tries it and refuses a template that
rewrites what came before. Whitespace at the edges of a response, which several templates trim, stays as sampled; so
does a response that lacks the reasoning which its family's templates write.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

from turnwise.agent.literal import LiteralEncoder
from turnwise.agent.messages import Message, Role
from turnwise.errors import CheckpointError
from turnwise.types import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "WORDS-OF-THE-ASSISTANT"
DATE = date(2024, 7, 26)  # Llama 3.1's own fallback for today's
_DATE_DIRECTIVES = (
    "a",
    "A",
    "b",
    "B",
    "d",
    "-d",
    "e",
    "m",
    "-m",
    "y",
    "Y",
    "j",
    "F",
    "D",
    "x",
    "c",
    "H",
    "I",
    "M",
    "S",
    "p",
)
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
# How families write a response: as it comes, without a block of reasoning, or behind one that it or its prompt opens.
_FORMATS = {
    "any": _TURN_PROBES,
    "plain": tuple(turn for turn in _TURN_PROBES if "<think>" not in turn[0]),
    "reasoned": tuple(
        ("<think>\nA thought.\n</think>\n\n" + response.strip(), output)
        for response, output in _TURN_PROBES
        if "<think>" not in response
    ),
    "opened": tuple(
        ("A thought.\n</think>\n\n" + response.strip(), output)
        for response, output in _TURN_PROBES
        if "<think>" not in response
    ),
}
_TEXT_PROBE = """def f(a, *b):
        return {'k': a[0] != b, "q": ~a}  # 100%
\tx = `y` @ z; _ = a | b ^ $c < d > e \\ &


"""


@dataclass(frozen=True)
class _Layout:
    """How the scaffold's messages are told to a template: the system prompt's place and the role of observations."""

    fold_system: bool
    observation_role: Role
    turns: tuple[tuple[str, str], ...] = _TURN_PROBES  # responses of the form that the template keeps, and outputs


# In the order they are tried. Observations are the user's words; a template that drops the reasoning of earlier turns
# at every new word of the user (Qwen3's) may keep it when they are a tool's.
_LAYOUTS = (_Layout(False, "user"), _Layout(True, "user"), _Layout(False, "tool"), _Layout(True, "tool"))


class ChatRenderer:
    """Renders openings and observations with a tokenizer's chat template, and decodes what was sampled.

    Raises `CheckpointError` with the reason where the tokenizer has no chat template, the template is not prefix-stable
    or marks no end of a turn, or the tokenizer loses text or is not a fast one. `today` is the date for a template that
    asks for it.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", today: date = DATE) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise CheckpointError(
                "the checkpoint's tokenizer has no chat template; put one beside it (chat_template.jinja)"
            )
        self._tokenizer = tokenizer
        self._template = _Template(tokenizer, today)
        self._encoder = LiteralEncoder(tokenizer)
        self._layout = _stable_layout(self._template)
        self.stop_token_ids = self._find_stop_tokens()
        self._check_tokens()

    def opening(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of the opening messages and of the generation prompt."""
        return self._encoder.encode(_pieces(self._template, self._layout, messages))

    def observation(self, text: str, stopped: bool = True) -> list[int]:
        """Everything between the last sampled token and the next response, around the observation `text`.

        A response that stopped ends with its own, sampled, stop token; one cut short (`stopped=False`) is ended here.
        """
        token_ids = self._encoder.encode(_between_pieces(self._template, self._layout, text))
        return token_ids[1:] if stopped else token_ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a sampled response, without the stop token that ended it."""
        ends = len(token_ids) > 0 and token_ids[-1] in self.stop_token_ids
        return self._text(token_ids[:-1] if ends else token_ids)

    def context_tokens(self, length: int, last: Turn | None) -> int:
        """`length`: these ids are the model's own tokens."""
        return length

    def _text(self, token_ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    def _find_stop_tokens(self) -> tuple[int, ...]:
        """What the template puts right behind a response, and the tokenizer's end of sequence.

        Where the next message's role ends a response (GLM's), it is that of the user or of the tool.
        """
        first = self._end_of_turn(self._layout)
        if first is None:
            between = _between(self._template, self._layout, "output")
            raise CheckpointError(
                f"the chat template marks no end of the assistant's turn with a token: {between[:40]!r}"
            )
        other = replace(self._layout, observation_role="user" if self._layout.observation_role == "tool" else "tool")
        ends = [first, self._end_of_turn(other), self._tokenizer.eos_token_id]
        return tuple(dict.fromkeys(end for end in ends if end is not None))

    def _end_of_turn(self, layout: _Layout) -> int | None:
        """The added token that the template puts first behind a response; None where it does not."""
        from jinja2 import TemplateError

        try:
            between = _between(self._template, layout, "output")
        except (TemplateError, TypeError, KeyError, ValueError):
            return None
        first = int(self._tokenizer.encode(between, add_special_tokens=False)[0])
        return first if first in self._tokenizer.added_tokens_decoder else None

    def _check_tokens(self) -> None:
        """Refuse a tokenizer whose tokens do not say what the template rendered."""
        back = self._text(self._encoder.encode([(_TEXT_PROBE, False)]))
        if back.lstrip(" ") != _TEXT_PROBE:
            raise CheckpointError(f"the tokenizer loses text: it gives {back!r} for {_TEXT_PROBE!r}")
        response, output = self._layout.turns[0]
        messages = [*_OPENING_PROBE, Message("assistant", response), Message(self._layout.observation_role, output)]
        sampled = self._encoder.encode([(response, False)])
        tokens = [*self.opening(_OPENING_PROBE), *sampled, *self.observation(output, stopped=False)]
        rendered, decoded = self._template.render(self._layout, messages), self._text(tokens)
        # Sentencepiece tokenizers put a space before each part, which the model never minds; templates trim.
        if "".join(decoded.split()) != "".join(rendered.split()):
            raise CheckpointError(f"the tokens of a conversation say {decoded!r}, its chat template {rendered!r}")


class _Template:
    """A tokenizer's chat template on one day."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", today: date) -> None:
        self._tokenizer = tokenizer
        # Templates see data alone, no functions of ours: a macro takes the place of the one that asks the clock.
        replaced = "".join(f" | replace('%{name}', '{today.strftime('%' + name)}')" for name in _DATE_DIRECTIVES)
        macro = "{% macro strftime_now(format) %}{{ format" + replaced + " }}{% endmacro %}{{ '' }}"
        self._text = macro + tokenizer.get_chat_template()

    def render(self, layout: _Layout, messages: Sequence[Message]) -> str:
        """The template's text, with its generation prompt."""
        if layout.fold_system and messages[0].role == "system":
            first = Message("user", f"{messages[0].content}\n\n{messages[1].content}")
            messages = [first, *messages[2:]]
        return str(
            self._tokenizer.apply_chat_template(
                [message.as_dict() for message in messages],
                chat_template=self._text,
                tokenize=False,
                add_generation_prompt=True,
            )
        )


def _stable_layout(template: _Template) -> _Layout:
    """The first layout under which the template is prefix-stable; raises `CheckpointError` where there is none."""
    reasons = []
    for layout in _LAYOUTS:
        for turns in _formats(template, layout):
            reason = _instability(template, replace(layout, turns=turns))
            if reason is None:
                return replace(layout, turns=turns)
            reasons.append(reason)
    raise CheckpointError(f"the chat template cannot be used for episodes of many turns: {reasons[0]}")


def _formats(template: _Template, layout: _Layout) -> list[tuple[tuple[str, str], ...]]:
    """The forms of response that the generation prompt leaves open."""
    from jinja2 import TemplateError

    try:
        prompt = template.render(layout, _OPENING_PROBE).rstrip()
    except (TemplateError, TypeError, KeyError, ValueError):
        return [_TURN_PROBES]  # the reason is found with the first
    if prompt.endswith("<think>"):
        return [_FORMATS["opened"]]
    if prompt.endswith("</think>"):
        return [_FORMATS["plain"]]
    return [_FORMATS["any"], _FORMATS["reasoned"]]


def _instability(template: _Template, layout: _Layout) -> str | None:
    """Why the template is not prefix-stable under this layout; None when it is."""
    from jinja2 import TemplateError

    try:
        return _first_change(template, layout)
    except (TemplateError, TypeError, KeyError, ValueError) as error:
        return f"it refuses the conversation: {error}"


def _first_change(template: _Template, layout: _Layout) -> str | None:
    messages = list(_OPENING_PROBE)
    so_far = template.render(layout, messages)
    if any(message.content not in so_far for message in messages):
        return "it leaves out the system prompt or the first message"
    for response, output in layout.turns:
        messages += [Message("assistant", response), Message(layout.observation_role, output)]
        longer = template.render(layout, messages)
        if not longer.startswith(so_far):
            return f"a new turn changes the text before it, {_difference(so_far, longer)}"
        added = longer[len(so_far) :]
        end = _end_of_words(added, response)
        if end is None:
            return f"it changes the assistant's words {response!r} into {added[: len(response) + 20]!r}"
        between = _between(template, layout, output)
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


def _between(template: _Template, layout: _Layout, output: str) -> str:
    """What the template puts between the assistant's last word and its next response."""
    messages = [*_OPENING_PROBE, Message("assistant", _MARK), Message(layout.observation_role, output)]
    rendered = template.render(layout, messages)
    if _MARK not in rendered:
        raise ValueError("the assistant's words are missing")
    return rendered.partition(_MARK)[2].lstrip()


def _between_pieces(template: _Template, layout: _Layout, output: str) -> list[tuple[str, bool]]:
    """`_between` in pieces, each with whether it is the output's."""
    head, _, tail = _between(template, layout, _mark(0)).partition(_mark(0))
    return [(head, False), (_inside(_between(template, layout, output), head, tail, output), True), (tail, False)]


def _pieces(template: _Template, layout: _Layout, messages: Sequence[Message]) -> list[tuple[str, bool]]:
    """The rendering of messages in pieces, each with whether it is a message's content.

    Found by rendering marks in the contents' place: contents may say what the template says.
    """
    marked = [replace(message, content=_mark(index)) for index, message in enumerate(messages)]
    pieces: list[tuple[str, bool]] = []
    for part in re.split(f"({_mark('[0-9]+')})", template.render(layout, marked)):
        index = re.fullmatch(_mark("([0-9]+)"), part)
        pieces.append((messages[int(index[1])].content, True) if index else (part, False))
    return _trimmed(pieces, template.render(layout, messages))


def _trimmed(pieces: list[tuple[str, bool]], rendered: str) -> list[tuple[str, bool]]:
    """The pieces as the template trims contents; as they are where it does more to them than that."""
    for trim in (str, str.strip, str.rstrip, str.lstrip):
        trimmed = [(trim(text) if is_content else text, is_content) for text, is_content in pieces]
        if "".join(text for text, _ in trimmed) == rendered:
            return trimmed
    return pieces


def _inside(rendered: str, head: str, tail: str, content: str) -> str:
    """What the rendering makes of the content between the template's own words."""
    fits = rendered.startswith(head) and rendered.endswith(tail) and len(rendered) >= len(head) + len(tail)
    return rendered[len(head) : len(rendered) - len(tail)] if fits else content


def _mark(number: int | str) -> str:
    return f"CONTENT-NUMBER-{number}-OF-THE-PROBE"
