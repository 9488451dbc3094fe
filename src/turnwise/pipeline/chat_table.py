"""The part of a recipe that says which endpoint has the model, and what of the rest then has no effect."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field

from turnwise.pipeline.table import Finding, Table
from turnwise.usage import Prices

if TYPE_CHECKING:
    from turnwise.pipeline.recipe import Recipe

OURS = frozenset({"model", "messages", "stream", "n", "tools"})  # fields of a request that the scaffold decides
MAX_QUEUE_MINUTES = 10  # of the 15 that an episode waits for a response


class PriceTable(Table):
    """`[policy.chat.price]`: US dollars per million tokens. Without `cached`, cached tokens cost what fresh ones do."""

    prompt: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)
    completion: float = Field(ge=0)

    @property
    def prices(self) -> Prices:
        """The table as a value."""
        return Prices(self.prompt, self.prompt if self.cached is None else self.cached, self.completion)


class ChatTable(Table):
    """`[policy.chat]`: an OpenAI-compatible endpoint, `base_url` being what stands before `/chat/completions`.

    `api_key_env` names the environment variable that holds the key. `request` holds further fields of every request
    under the endpoint's own names (temperature, max_tokens, reasoning_effort, …); none are sent of our own accord. A
    request may take `timeout_s` and is tried `attempts` times; `requests_per_minute` paces them.
    """

    base_url: str = Field(pattern=r"^https?://[^/\s]+")
    api_key_env: str | None = Field(default=None, min_length=1)
    timeout_s: float = Field(default=600.0, gt=0)
    attempts: int = Field(default=6, ge=1)
    requests_per_minute: float | None = Field(default=None, gt=0)
    request: dict[str, Any] = Field(default_factory=dict)
    price: PriceTable | None = None


def policy_findings(recipe: "Recipe") -> Iterator[Finding]:
    """What a policy's backend needs and what has no effect with it."""
    chat = recipe.policy.chat
    if recipe.policy.backend == "torch":
        if recipe.model.checkpoint is None:
            yield "model.checkpoint", "is missing"
        if recipe.model.name is not None:
            yield "model.name", "has no effect with policy.backend 'torch': a checkpoint goes by its folder or hub id"
        if chat is not None:
            yield "policy.chat", "has no effect without policy.backend = 'chat'"
    elif chat is None:
        yield "policy.chat", "policy.backend 'chat' needs this table, with the endpoint's base_url"
    else:
        yield from _chat_findings(recipe, chat)


def _chat_findings(recipe: "Recipe", chat: ChatTable) -> Iterator[Finding]:
    no_effect = "has no effect with policy.backend 'chat': "
    if recipe.stages:
        yield (
            "policy.backend",
            "an endpoint gives no log-probabilities to train on and takes no weights; stages need 'torch'",
        )
    if recipe.model.name is None:
        yield "model.name", "is missing: what the endpoint calls the model"
    if recipe.model.checkpoint is not None:
        yield "model.checkpoint", no_effect + "model.name says what the endpoint calls the model"
    if recipe.policy.threads:
        yield "policy.threads", no_effect + "torch does not run here"
    if recipe.run.seed:
        yield "run.seed", no_effect + "the endpoint draws by itself, and evaluation.runs repeats it"
    if "max_response_tokens" in recipe.agent.model_fields_set:
        yield "agent.max_response_tokens", no_effect + "set the endpoint's own limit in policy.chat.request"
    for key in sorted(OURS & chat.request.keys()):
        yield f"policy.chat.request.{key}", "is said by the scaffold itself"
    if chat.requests_per_minute and recipe.policy.concurrency > MAX_QUEUE_MINUTES * chat.requests_per_minute:
        yield (
            "policy.chat.requests_per_minute",
            (
                f"with policy.concurrency {recipe.policy.concurrency} a request would wait for over "
                f"{MAX_QUEUE_MINUTES} minutes; lower the concurrency"
            ),
        )
