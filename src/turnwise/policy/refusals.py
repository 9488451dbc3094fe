"""What an endpoint's error answer means, whichever service words it: one table of codes and wordings for all.

The wordings are those of OpenAI, Azure, Anthropic, vLLM, SGLang, TGI, llama.cpp, Ollama, OpenRouter, Together,
Fireworks, Mistral, DeepSeek, DashScope, Gemini, Bedrock, Groq, xAI and LiteLLM; `tests/policy/refusals.py` has a text
of each.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

LIMIT_KEYS = ("max_tokens", "max_completion_tokens", "max_new_tokens")
_RETRIED = frozenset({408, 409, 425, 429})  # beside every 5xx


class Refusal(StrEnum):
    """The kinds of error answers. CONTEXT and CONTENT are the policy's doing, SETTING, KEY, CREDIT and MODEL the
    user's to mend, RATE and SERVER are tried again, OTHER fails this request alone."""

    CONTEXT = "context"
    CONTENT = "content"
    SYSTEM_ROLE = "system_role"
    SETTING = "setting"
    KEY = "key"
    CREDIT = "credit"
    MODEL = "model"
    RATE = "rate"
    SERVER = "server"
    OTHER = "other"


@dataclass(frozen=True)
class Split:
    """A context of `window` tokens, of which the prompt alone takes `prompt`.

    >>> Split(window=2048, prompt=8).room
    2040
    """

    window: int
    prompt: int

    @property
    def room(self) -> int:
        """What is left for the reply; below 1 where the prompt alone is too long."""
        return self.window - self.prompt


# Prompt and limit of the reply together exceed the window, each named.
_SPLITS = [
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"context length (?:is|of) (?P<window>\d+).*?\((?P<prompt>\d+) (?:in the messages|of text input)",
        r"context length (?:is|of) (?P<window>\d+).*?request has (?P<prompt>\d+) input tokens",
        r"context length (?:is|of) (?P<window>\d+).*?your prompt contains (?:at least )?(?P<prompt>\d+)",
        r"context length (?:is|of) (?P<window>\d+).*?: (?P<prompt>\d+) tokens from the input",
        r"must be <= (?P<window>\d+)\. Given: (?P<prompt>\d+) `inputs` tokens and",
        r"exceed context limit: (?P<prompt>\d+) \+ \d+ > (?P<window>\d+)",
    )
]
# In the order they are tried; a code is compared with the answer's `code` and `type`.
_CODES = {
    "context_length_exceeded": Refusal.CONTEXT,
    "exceed_context_size_error": Refusal.CONTEXT,
    "model_max_prompt_tokens_exceeded": Refusal.CONTEXT,
    "content_filter": Refusal.CONTENT,
    "content_policy_violation": Refusal.CONTENT,
    "data_inspection_failed": Refusal.CONTENT,
    "datainspectionfailed": Refusal.CONTENT,
    "insufficient_quota": Refusal.CREDIT,
    "billing_hard_limit_reached": Refusal.CREDIT,
    "arrearage": Refusal.CREDIT,
    "invalid_api_key": Refusal.KEY,
    "model_not_found": Refusal.MODEL,
}
_WORDINGS = [
    (kind, re.compile(pattern, re.IGNORECASE | re.DOTALL))
    for kind, pattern in (
        (
            Refusal.SYSTEM_ROLE,
            r"system (role|message|prompt)s? (is |are )?not (supported|enabled|allowed)|does not support 'system'"
            r"|does not support system (role|message|prompt)s?|developer instruction is not enabled"
            r"|roles must alternate",
        ),
        (
            Refusal.CONTENT,
            r"content (management|filter|policy)|responsible ?ai|inappropriate content|safety (system|filter)"
            r"|\b(input|prompt|request|content|message|text|output|response)s?( \w+){0,3} flagged|flagged_input"
            r"|usage polic|blocked by .*(guardrail|moderation)|content exists risk|prohibited[_ ]content",
        ),
        (
            Refusal.CONTEXT,
            r"(maximum |max(imum)? )?context[ _](length|window|size|limit)|contextwindowexceeded"
            r"|maximum (model|prompt|input) length|model token limit|range of input length"
            r"|(prompt|input)s?\b.*\b(too long|too large|longer than|exceeds?)\b"
            r"|`inputs` must have less than|reduce the length of the (messages|prompt|input)"
            r"|too many (input )?tokens\b.*\bprompt|'(messages|input|prompt)\b[^']*': string too long",
        ),
        (
            Refusal.KEY,
            r"(api key|(access|auth\w*|bearer) token) (is )?(not valid|invalid|expired)|(invalid|incorrect|no) api key",
        ),
        (Refusal.CREDIT, r"credit balance is too low|insufficient (balance|credits?|funds)|account .*overdue"),
    )
]
_UNKNOWN_FIELD = re.compile(
    r"(unknown|unsupported|unrecogni[sz]ed|unexpected) (request )?(field|parameter|argument|keyword|name)"
    r"|extra inputs are not permitted|is not a valid (field|parameter|argument)",
    re.IGNORECASE,
)
_DECISIVE = frozenset({401, 402, 404})  # statuses that say what is wrong, whatever policy the text links to
_BY_STATUS = {401: Refusal.KEY, 402: Refusal.CREDIT, 403: Refusal.KEY, 404: Refusal.MODEL, 429: Refusal.RATE}


def classify(status: int, text: str, codes: Iterable[str], settings: Iterable[str]) -> Refusal:
    """The kind of an error answer of HTTP `status`, whose whole body is `text`, and `codes` its codes and types.

    `settings` are the fields that the user added to the request: an answer that names one of them is about that.

    >>> classify(400, "Range of input length should be [1, 98304]", [], [])
    <Refusal.CONTEXT: 'context'>
    >>> classify(400, "temperature must be at most 1", [], ["temperature"])
    <Refusal.SETTING: 'setting'>
    """
    known = next((_CODES[code.lower()] for code in codes if code.lower() in _CODES), None)
    if known is not None:
        return known
    if status in _DECISIVE:
        return _BY_STATUS[status]
    about_settings = bool(named_settings(text, settings))
    if about_settings and status not in _BY_STATUS and status < 500 and _UNKNOWN_FIELD.search(text):
        return Refusal.SETTING
    temporary = status >= 500 or status in _RETRIED
    worded = next((kind for kind, wording in _WORDINGS if wording.search(text)), None)
    if worded is not None and (not temporary or worded is Refusal.SYSTEM_ROLE):
        return worded
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if temporary:
        return Refusal.SERVER
    return Refusal.SETTING if about_settings else Refusal.OTHER


def named_settings(text: str, settings: Iterable[str]) -> list[str]:
    """Those of the user's fields of a request that an answer names."""
    return [each for each in settings if re.search(rf"\b{re.escape(each)}\b", text)]


def split_of(text: str) -> Split | None:
    """The window and the prompt's length where prompt and limit of the reply together exceed the window.

    >>> split_of("maximum context length is 2048 tokens. However, your request has 8 input tokens plus 2045")
    Split(window=2048, prompt=8)
    """
    found = next(filter(None, (pattern.search(text) for pattern in _SPLITS)), None)
    return None if found is None else Split(int(found["window"]), int(found["prompt"]))
