"""A recipe as typed values: what a run is, independent of the file it came from (`turnwise.config` reads the file).

One table per room of the house; `[[stages]]` are run in order. Every number that the paper gives has a key here
(PAPER.md, sections 4.2, 4.3 and appendix C); what the paper holds constant (one epoch, no KL term, the token-level
mean, temperature 1) has none.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import date
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from turnwise.pipeline.chat_table import ChatTable, policy_findings
from turnwise.pipeline.table import Finding, Table

BASE = "base"
ALL_SPLITS = "*"
# Keys that may change when a run is taken up again: they move time and memory, not what is sampled or learnt.
OPERATIONAL_KEYS = frozenset(
    {
        "tasks.repos",
        "tasks.gate",
        "policy.concurrency",
        "policy.threads",
        "policy.chat.api_key_env",
        "policy.chat.timeout_s",
        "policy.chat.attempts",
        "policy.chat.requests_per_minute",
        "policy.chat.price.prompt",
        "policy.chat.price.cached",
        "policy.chat.price.completion",
        "sandbox.verifications",
        "trainer.threads",
        "trainer.micro_batch_tokens",
        "trainer.logprob_chunk_tokens",
    }
)
_KUBERNETES_KEYS = (
    "namespace",
    "service_account",
    "image_pull_policy",
    "node_selector",
    "request_cpus",
    "request_memory_mb",
)
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


def _rate(value: Any) -> Any:
    """A share given as a number or as a fraction in words ("2/3")."""
    return float(Fraction(value)) if isinstance(value, str) and re.fullmatch(r"\d+/[1-9]\d*", value) else value


class RunTable(Table):
    """`[run]`: what the run is called and the one seed that every choice derives from."""

    name: str = Field(pattern=f"^{_NAME.pattern}$")
    seed: int = Field(default=0, ge=0)


def _day(text: str) -> str:
    return date.fromisoformat(text).isoformat()


class ModelTable(Table):
    """`[model]`: a checkpoint folder in Hugging Face format or a hub id; for an endpoint, the name it has there.

    `today` is what a chat template that asks for the date is given, in every run and on every day of it: YYYY-MM-DD.
    """

    checkpoint: str | None = Field(default=None, min_length=1)
    name: str | None = Field(default=None, min_length=1)
    today: Annotated[str, AfterValidator(_day)] = "2024-07-26"


class TasksTable(Table):
    """`[tasks]`: a JSONL file of SWE-bench-style rows, or "frozen" for the set that ships.

    The splits are values of the rows' `meta.split`; `heldout_split = "*"` evaluates on every row, where nothing trains.
    `select` takes only a named selection (`verified-50`), or the rows in whose instance ids a regular expression is
    found. `repos` is a folder of clones of the tasks' repositories, named OWNER__NAME. `gate` is what `turnwise tasks
    validate` found: nothing is trained on that it does not admit. Without it, tasks of repositories are not trained on,
    unless it is "none".
    """

    path: str = Field(default="frozen", min_length=1)
    select: str | None = Field(default=None, min_length=1)
    train_split: str = "train"
    heldout_split: str = "heldout"
    repos: str | None = Field(default=None, min_length=1)
    gate: str | None = Field(default=None, min_length=1)


class AgentTable(Table):
    """`[agent]`: the scaffold. `max_turns` and `context_tokens` hold where a stage does not name its own."""

    system_prompt: Literal["full", "compact"] = "full"
    window_lines: int = Field(default=100, ge=4)
    max_turns: int = Field(default=40, ge=1)
    context_tokens: int = Field(default=65_536, ge=64)
    max_response_tokens: int = Field(default=4_096, ge=1)
    command_timeout_s: float = Field(default=60.0, ge=0.1)
    episode_timeout_s: float = Field(default=3_600.0, ge=0.1)
    max_observation_chars: int = Field(default=20_000, ge=200)
    max_consecutive_format_errors: int = Field(default=5, ge=1)
    max_patch_bytes: int = Field(default=1_000_000, ge=1)


class SandboxTable(Table):
    """`[sandbox]`: the backend and what one sandbox may use.

    `images`: whether tasks run in the images that their rows name; left out, they do where sandboxes are containers.
    `local` unpacks them. `base_image` is for what has no image, where sandboxes are containers; the keys from
    `namespace` on are Kubernetes' (docs/containers.md). `verify_timeout_s` is for a whole run of the hidden tests, and
    `verifications` of them go on beside the episodes. What the infrastructure fails is tried again `retries` times.
    """

    backend: Literal["local", "docker", "kubernetes"] = "local"
    images: bool | None = None
    base_image: str = ""
    memory_mb: int = Field(default=1_024, ge=64)
    processes: int = Field(default=64, ge=4)
    disk_mb: int = Field(default=256, ge=1)
    output_bytes: int = Field(default=64_000, ge=1_000)
    cpus: float = Field(default=1.0, gt=0)
    verify_timeout_s: float = Field(default=600.0, gt=0)
    verifications: int = Field(default=2, ge=1)
    retries: int = Field(default=2, ge=0)
    namespace: str = Field(default="turnwise", min_length=1)
    service_account: str = ""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    node_selector: dict[str, str] = Field(default_factory=dict)
    request_cpus: float = Field(default=0.5, gt=0)
    request_memory_mb: int = Field(default=2_048, ge=1)


class RewardsTable(Table):
    """`[rewards]`: `tripwires` names the rules of turnwise/rewards/tripwires.toml that hold (left out: all of them)."""

    tripwires: tuple[str, ...] | None = Field(default=None, strict=False)


class PolicyTable(Table):
    """`[policy]`: what samples. `concurrency` is episodes at once; `threads` 0 leaves torch its own setting."""

    backend: Literal["torch", "chat"] = "torch"
    concurrency: int = Field(default=32, ge=1)
    threads: int = Field(default=0, ge=0)
    chat: ChatTable | None = None


class TrainerTable(Table):
    """`[trainer]`: what all stages share. `max_mismatch` bounds the mean |engine - trainer| log-prob, in nats."""

    weight_decay: float = Field(default=0.1, ge=0)
    betas: tuple[float, float] = Field(default=(0.9, 0.999), strict=False)
    eps: float = Field(default=1e-8, gt=0)
    grad_clip: float = Field(default=1.0, gt=0)
    micro_batch_tokens: int = Field(default=8_192, ge=1)
    logprob_chunk_tokens: int = Field(default=1_024, ge=1)
    threads: int = Field(default=0, ge=0)
    max_mismatch: float = Field(default=0.02, gt=0)


class Refresh(Table):
    """`refresh`: which problems the stage before leaves to this one (PAPER.md sec 4.3: over 2/3, never solved: out)."""

    max_success: Annotated[float, BeforeValidator(_rate)] = Field(default=2 / 3, gt=0, le=1)
    drop_never_solved: bool = True


class StageLimits(Table):
    """What both kinds of stage have. Limits left out are those of `[agent]`."""

    name: str
    lr: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    warmup_steps: int = Field(default=0, ge=0)
    max_turns: int | None = Field(default=None, ge=1)
    context_tokens: int | None = Field(default=None, ge=64)


class RftStage(StageLimits):
    """Rejection fine-tuning: `runs` episodes of every training task, one epoch over the resolved (PAPER.md sec 4.2)."""

    kind: Literal["rft"]
    runs: int = Field(ge=1)
    demonstration: bool = False
    schedule: Literal["cosine", "constant"] = "cosine"


class RlStage(StageLimits):
    """Staged DAPO: each iteration samples problems, then `group_size` episodes of each (PAPER.md sec 4.3)."""

    kind: Literal["rl"]
    iterations: int = Field(ge=1)
    problems_per_iteration: int = Field(ge=1)
    group_size: int = Field(ge=1)
    clip_low: float = Field(gt=0, lt=1)
    clip_high: float = Field(gt=0)
    length_threshold: int | None = Field(default=None, ge=0)
    refresh: Refresh | None = None


Stage = Annotated[RftStage | RlStage, Field(discriminator="kind")]


class EvaluationTable(Table):
    """`[evaluation]`: `runs` episodes of every held-out task at each of `points`.

    With `every`, `every_runs` more after each `every` RL iterations draw the curves between the points. `tasks` keeps
    that many held-out tasks (the same ones whatever the seed); without it all are run.
    """

    points: tuple[str, ...] = Field(strict=False)
    runs: int = Field(ge=1)
    k: int = Field(ge=1)
    tasks: int | None = Field(default=None, ge=1)
    every: int | None = Field(default=None, ge=1)
    every_runs: int | None = Field(default=None, ge=1)


class Recipe(Table):
    """A whole run. Without stages it only evaluates its checkpoint (`turnwise eval`).

    >>> Recipe.model_validate({
    ...     "run": {"name": "demo"}, "model": {"checkpoint": "models/standin"},
    ...     "evaluation": {"points": ["base"], "runs": 2, "k": 2},
    ... }).evaluation.points
    ('base',)
    """

    run: RunTable
    model: ModelTable = ModelTable()
    tasks: TasksTable = TasksTable()
    agent: AgentTable = AgentTable()
    sandbox: SandboxTable = SandboxTable()
    rewards: RewardsTable = RewardsTable()
    policy: PolicyTable = PolicyTable()
    trainer: TrainerTable = TrainerTable()
    stages: tuple[Stage, ...] = Field(default=(), strict=False)
    evaluation: EvaluationTable

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        problems = [f"{key}: {reason}" for key, reason in contradictions(self)]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def weights(self) -> str:
        """The checkpoint that the run starts from; empty where an endpoint has the model."""
        return self.model.checkpoint or ""

    @property
    def model_name(self) -> str:
        """What predictions say they were made by: the endpoint's name for the model, or the checkpoint's own."""
        return self.model.name or self.weights.rstrip("/").rsplit("/", 1)[-1]

    def stage(self, name: str) -> RftStage | RlStage:
        """The stage of that name; KeyError when there is none."""
        return {stage.name: stage for stage in self.stages}[name]

    def max_turns(self, stage: RftStage | RlStage | None) -> int:
        """Turn limit of a stage (None: the base checkpoint's evaluation)."""
        return (stage and stage.max_turns) or self.agent.max_turns

    def context_tokens(self, stage: RftStage | RlStage | None) -> int:
        """Context limit of a stage (None: the base checkpoint's evaluation)."""
        return (stage and stage.context_tokens) or self.agent.context_tokens


def contradictions(recipe: Recipe) -> Iterator[Finding]:
    """Every key that contradicts another or has no effect, with the reason."""
    yield from _stage_names(recipe)
    for index, stage in enumerate(recipe.stages):
        yield from _limits(recipe, stage)
        yield from _rft_findings(stage, index) if isinstance(stage, RftStage) else _rl_findings(recipe, stage, index)
    yield from _shared_findings(recipe)
    yield from _sandbox_findings(recipe.sandbox)
    yield from _evaluation_findings(recipe)
    yield from policy_findings(recipe)


def _stage_names(recipe: Recipe) -> Iterator[Finding]:
    seen: set[str] = set()
    for stage in recipe.stages:
        key = f"stages.{stage.name}.name"
        if stage.name in (BASE, "order"):
            yield key, f"{stage.name!r} means something else already; call the stage differently"
        if not _NAME.fullmatch(stage.name):
            yield key, "a stage's name is lower-case letters, digits, '.', '_' and '-' (it becomes part of episode ids)"
        if stage.name in seen:
            yield key, "two stages have this name"
        seen.add(stage.name)


def _shared_findings(recipe: Recipe) -> Iterator[Finding]:
    if recipe.policy.backend == "torch" and recipe.agent.context_tokens <= recipe.agent.max_response_tokens:
        yield "agent.max_response_tokens", "leaves no room for a prompt in agent.context_tokens"
    if recipe.stages and recipe.tasks.heldout_split in (recipe.tasks.train_split, ALL_SPLITS):
        yield "tasks.heldout_split", "takes in the training split: held-out tasks must not be trained on"
    if not recipe.stages and recipe.tasks.gate is not None:
        yield "tasks.gate", "has no effect: the recipe has no stages, so nothing is trained"
    if not recipe.stages and "trainer" in recipe.model_fields_set:
        yield "trainer", "has no effect: the recipe has no stages, so nothing is trained"


def _sandbox_findings(sandbox: SandboxTable) -> Iterator[Finding]:
    """A recorded recipe spells out every default: what has no effect is refused where it differs from that."""
    users = {"base_image": ("docker", "kubernetes")} | dict.fromkeys(_KUBERNETES_KEYS, ("kubernetes",))
    for key, backends in users.items():
        if sandbox.backend not in backends and getattr(sandbox, key) != SandboxTable.model_fields[key].get_default(
            call_default_factory=True
        ):
            yield (
                f"sandbox.{key}",
                f"has no effect with backend = {sandbox.backend!r}; it is for {' and '.join(backends)}",
            )


def _limits(recipe: Recipe, stage: RftStage | RlStage) -> Iterator[Finding]:
    if stage.context_tokens is not None and stage.context_tokens <= recipe.agent.max_response_tokens:
        yield f"stages.{stage.name}.context_tokens", "leaves no room for a prompt beside agent.max_response_tokens"


def _rft_findings(stage: RftStage, index: int) -> Iterator[Finding]:
    if stage.demonstration and index > 0:
        yield (
            f"stages.{stage.name}.demonstration",
            "only the base checkpoint collects with a demonstration; trained models go without it (PAPER.md, Agent)",
        )


def _rl_findings(recipe: Recipe, stage: RlStage, index: int) -> Iterator[Finding]:
    where = f"stages.{stage.name}"
    if stage.group_size < 2:
        yield f"{where}.group_size", "a group of one has no advantage to learn from; at least 2"
    max_turns = recipe.max_turns(stage)
    if stage.length_threshold is not None and stage.length_threshold >= max_turns:
        yield f"{where}.length_threshold", f"no episode can pass it: the stage's turn limit is {max_turns}"
    if stage.refresh is not None and not any(isinstance(earlier, RlStage) for earlier in recipe.stages[:index]):
        yield f"{where}.refresh", "no RL stage comes before this one, so there are no success rates to refresh by"
    if stage.refresh is not None and stage.refresh.max_success == 1 and not stage.refresh.drop_never_solved:
        yield f"{where}.refresh", "has no effect: nothing is over 1 and the never solved are kept"


def _evaluation_findings(recipe: Recipe) -> Iterator[Finding]:
    evaluation = recipe.evaluation
    names = [BASE, *(stage.name for stage in recipe.stages)]
    for point in evaluation.points:
        if point not in names:
            yield "evaluation.points", f"{point!r} is no stage; there are {', '.join(names)}"
    if len(set(evaluation.points)) < len(evaluation.points):
        yield "evaluation.points", "names a point twice"
    if not evaluation.points and not recipe.stages:
        yield "evaluation.points", "without stages and without points the run does nothing"
    if evaluation.k > evaluation.runs:
        yield (
            "evaluation.k",
            f"Pass@{evaluation.k} needs at least {evaluation.k} runs; evaluation.runs is {evaluation.runs}",
        )
    yield from _curve_findings(recipe)


def _curve_findings(recipe: Recipe) -> Iterator[Finding]:
    every, every_runs = recipe.evaluation.every, recipe.evaluation.every_runs
    if every_runs is not None and every is None:
        yield "evaluation.every_runs", "has no effect without evaluation.every"
    if every is None:
        return
    if every_runs is None:
        yield "evaluation.every", "needs evaluation.every_runs beside it"
    if not any(isinstance(stage, RlStage) and stage.iterations > every for stage in recipe.stages):
        yield "evaluation.every", "has no effect: no RL stage has that many iterations before its last"


def flat(recipe: Recipe) -> dict[str, Any]:
    """Every key that has a value, by its dotted name; a stage goes by its own name: `stages.rl-1.lr`."""
    raw = recipe.model_dump(mode="json", exclude_none=True)
    named = {stage["name"]: stage for stage in raw["stages"]}
    raw["stages"] = named | {"order": [stage["name"] for stage in raw["stages"]]}
    return dict(_walk(raw, ""))


def _walk(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _walk(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
