"""From a recipe to what it names: tasks, policy, sandboxes, collectors, trainers. Only here are backends chosen."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from turnwise.agent import AgentConfig, ChatRenderer, Renderer, TranscriptRenderer, load_tokenizer
from turnwise.errors import CheckpointError, InputError, TaskError, TaskFailure
from turnwise.pipeline.chat_table import ChatTable
from turnwise.pipeline.recipe import ALL_SPLITS, Recipe, RftStage, RlStage, SandboxTable
from turnwise.policy import ChatPolicy, Endpoint, Policy
from turnwise.rewards import References, Verification, chosen_rules, require_graders
from turnwise.rollout import Collector, Environments
from turnwise.sandbox import (
    DockerBackend,
    KubernetesBackend,
    LocalBackend,
    PodSettings,
    SandboxBackend,
    unpack_image,
)
from turnwise.store import Journal
from turnwise.tasks import EnvironmentStore, frozen_path, read_tasks, select
from turnwise.tasks.cache import default_cache_dir, locked
from turnwise.tasks.images import ImageSource
from turnwise.tasks.verdicts import require_gate
from turnwise.types import Limits, SandboxSpec, Task

if TYPE_CHECKING:
    from turnwise.trainer import Trainer, TrainerConfig


@dataclass(frozen=True)
class LimitedEnvironments:
    """Environments under the recipe's limits.

    A task whose environment cannot be made costs its own episodes and nobody else's: the reason is kept, so that it is
    not tried anew for each of them, and raised as a TaskFailure.
    """

    made_by: Environments
    limits: Limits
    _failed: dict[str, TaskError] = field(default_factory=dict, init=False)

    async def prepare(self, task: Task) -> SandboxSpec:
        """The specification as it is made, with these limits."""
        if task.instance_id not in self._failed:
            try:
                return replace(await self.made_by.prepare(task), limits=self.limits)
            except TaskError as error:
                self._failed[task.instance_id] = error
        reason = self._failed[task.instance_id]
        raise TaskFailure(f"no environment for {task.instance_id}: {reason}") from reason

    def stop(self) -> None:
        """End what is being made."""
        self.made_by.stop()


def named_tasks(path: str, wanted: str | None = None) -> list[Task]:
    """The tasks of a file, or of the set that ships where `path` is "frozen"; only those that `select` takes, if asked.

    Raises TaskError naming the file and what is wrong, InputError for a broken pattern.
    """
    tasks = read_tasks(frozen_path() if path == "frozen" else Path(path))
    try:
        return tasks if wanted is None else select(tasks, wanted)
    except TaskError as error:
        raise TaskError(f"{path}: {error}") from error


def split_tasks(recipe: Recipe, split: str) -> list[Task]:
    """The recipe's tasks of one split, in the order of their file. Raises TaskError where there is none.

    Rows from elsewhere know no splits; a recipe that trains on none of them evaluates on all.
    """
    path = recipe.tasks.path
    tasks = named_tasks(path, recipe.tasks.select)
    if not recipe.stages and all("split" not in task.meta for task in tasks):
        return tasks
    chosen = [task for task in tasks if split in (ALL_SPLITS, task.meta.get("split"))]
    if not chosen:
        splits = sorted({str(task.meta.get("split")) for task in tasks})
        raise TaskError(f"{path}: no task has meta.split {split!r}; there are {', '.join(splits) or 'no tasks at all'}")
    return chosen


def agent_config(recipe: Recipe, stage: RftStage | RlStage | None, demonstration: bool = False) -> AgentConfig:
    """The scaffold as a stage runs it, under the stage's own limits (None: the untrained checkpoint)."""
    shared = recipe.agent.model_dump()
    own = {"max_turns": recipe.max_turns(stage), "context_tokens": recipe.context_tokens(stage)}
    if recipe.policy.backend == "chat":  # an endpoint bounds its responses itself
        own["max_response_tokens"] = own["context_tokens"] - 1
    return AgentConfig(**(shared | own), demonstration=demonstration)


@dataclass(frozen=True)
class Workshop:
    """Everything that a run shares between its stages. Make it with `open_workshop`; `close` it in the same loop."""

    recipe: Recipe
    journal: Journal
    policy: Policy
    renderer: Renderer
    backend: SandboxBackend
    environments: Environments
    verification: Verification
    train_tasks: list[Task]
    heldout_tasks: list[Task]

    def collector(self, stage: RftStage | RlStage | None, demonstration: bool = False) -> Collector:
        """Runs episodes under a stage's limits; RL stages with a threshold pay the length penalty."""
        return Collector(
            policy=self.policy,
            renderer=self.renderer,
            backend=self.backend,
            environments=self.environments,
            journal=self.journal,
            agent_config=agent_config(self.recipe, stage, demonstration),
            concurrency=self.recipe.policy.concurrency,
            seed=self.recipe.run.seed,
            verifications=self.recipe.sandbox.verifications,
            verification=self.verification,
            retries=self.recipe.sandbox.retries,
            length_threshold=stage.length_threshold if isinstance(stage, RlStage) else None,
        )

    async def close(self) -> None:
        """Stop the engine and the making of environments, and remove what the sandboxes left."""
        self.environments.stop()
        await self.policy.close()
        await self.backend.close()


def open_workshop(recipe: Recipe, journal: Journal, weights: str, environments: Environments | None = None) -> Workshop:
    """Load the checkpoint at `weights` and make the backends. Raises CheckpointError, SandboxError or InputError.

    InputError is also raised for tasks to be trained on that did not pass the gate (`require_gate`), and where what
    grades a task is not installed. `environments` stands in for the store that builds them.
    """
    train_tasks = split_tasks(recipe, recipe.tasks.train_split) if recipe.stages else []
    require_gate(train_tasks, recipe.tasks.gate)
    heldout_tasks = split_tasks(recipe, recipe.tasks.heldout_split)
    require_graders([*train_tasks, *heldout_tasks])
    chosen_rules(recipe.rewards.tripwires)
    renderer, policy = _open_policy(recipe, journal, weights)
    backend = open_backend(recipe.sandbox)
    return Workshop(
        recipe=recipe,
        journal=journal,
        renderer=renderer,
        policy=policy,
        backend=backend,
        verification=open_verification(backend, recipe.sandbox, recipe.rewards.tripwires),
        environments=open_environments(recipe.sandbox, recipe.tasks.repos, environments),
        train_tasks=train_tasks,
        heldout_tasks=heldout_tasks,
    )


def open_backend(sandbox: SandboxTable) -> SandboxBackend:
    """The sandbox backend that a recipe names; it connects at its first sandbox."""
    if sandbox.backend == "docker":
        return DockerBackend(base_image=sandbox.base_image)
    if sandbox.backend == "kubernetes":
        settings = PodSettings(
            namespace=sandbox.namespace,
            service_account=sandbox.service_account,
            image_pull_policy=sandbox.image_pull_policy,
            node_selector=sandbox.node_selector,
            cpu_request=sandbox.request_cpus,
            memory_request_mb=sandbox.request_memory_mb,
        )
        return KubernetesBackend(base_image=sandbox.base_image, settings=settings)
    return LocalBackend()


def open_verification(
    backend: SandboxBackend, sandbox: SandboxTable, tripwires: Sequence[str] | None = None
) -> Verification:
    """Verification under the table's time-out, with these tripwires (None: all). Raises InputError for an unknown one.

    Mutated tests are kept in the cache folder, for all runs.
    """
    timeout_s = sandbox.verify_timeout_s
    references = References(backend, timeout_s, default_cache_dir() / "variants")
    return Verification(backend, timeout_s=timeout_s, tripwires=tripwires, references=references)


def open_environments(
    sandbox: SandboxTable, repos: str | Path | None, made_by: Environments | None = None
) -> Environments:
    """Environments, of our own store with these `repos` where no others are given, under the table's limits."""
    return LimitedEnvironments(made_by or open_store(sandbox, repos), sandbox_limits(sandbox))


def open_store(
    sandbox: SandboxTable, repos: str | Path | None, known: Mapping[str, Path] | None = None
) -> EnvironmentStore:
    """The store that builds environments; `repos` holds clones of the tasks' repositories. Raises InputError.

    `known` are repositories by name ("owner/name") that lie elsewhere.
    """
    folder = None if repos is None else Path(repos)
    if folder is not None and not folder.is_dir():
        raise InputError(f"tasks.repos: {folder}: no such folder")
    return EnvironmentStore(repos=folder, images=_image_source(sandbox), known=known)


def _image_source(sandbox: SandboxTable) -> ImageSource | None:
    is_local = sandbox.backend == "local"
    wanted = not is_local if sandbox.images is None else sandbox.images
    if not wanted:
        return None
    return _unpacked if is_local else lambda image: (image, {})


def _unpacked(image: str) -> tuple[str, Mapping[str, str]]:
    folder = default_cache_dir() / "images" / quote(image, safe="")
    with locked(folder):
        unpacked = unpack_image(image, folder)
    return str(unpacked.root), unpacked.env


def sandbox_limits(sandbox: SandboxTable) -> Limits:
    """What one sandbox may use, as the table says."""
    return Limits(sandbox.memory_mb, sandbox.processes, sandbox.disk_mb, sandbox.output_bytes, sandbox.cpus)


def _open_policy(recipe: Recipe, journal: Journal, weights: str) -> tuple[Renderer, Policy]:
    if recipe.policy.chat is not None:
        return TranscriptRenderer(), _open_chat(recipe.policy.chat, recipe.model_name, journal)
    _need_torch()
    return _load_renderer(weights, date.fromisoformat(recipe.model.today)), _load_policy(recipe, weights)


def _open_chat(chat: ChatTable, model: str, journal: Journal) -> ChatPolicy:
    """The endpoint's policy; what fails there is counted in the journal, whether or not another try succeeds."""
    key = None if chat.api_key_env is None else os.environ.get(chat.api_key_env)
    if chat.api_key_env is not None and not key:
        raise InputError(f"policy.chat.api_key_env: the environment variable {chat.api_key_env} is not set")
    return ChatPolicy(
        Endpoint(chat.base_url, model, key, chat.api_key_env, chat.timeout_s),
        request=chat.request,
        attempts=chat.attempts,
        requests_per_minute=chat.requests_per_minute,
        on_failure=lambda cause, session, detail: journal.record_failure(cause, session, detail, dropped=False),
    )


def _load_renderer(weights: str, today: date) -> ChatRenderer:
    try:
        return ChatRenderer(load_tokenizer(weights), today)
    except CheckpointError as error:
        raise CheckpointError(f"{weights}: {error}") from error


def _load_policy(recipe: Recipe, weights: str) -> Policy:
    from turnwise.policy.torch_policy import TorchPolicy

    return TorchPolicy.from_pretrained(
        weights,
        max_sequences=recipe.policy.concurrency,
        threads=recipe.policy.threads or None,
        context_tokens=max(recipe.context_tokens(stage) for stage in (None, *recipe.stages)),
    )


def _need_torch() -> None:
    try:
        import torch  # noqa: F401
        from transformers.utils import logging
    except ModuleNotFoundError as error:
        raise InputError(f"training and sampling need {error.name}: pip install 'turnwise[train]'") from error
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # bars of loading would tear up the live line


def trainer_config(recipe: Recipe, stage: RftStage | RlStage) -> "TrainerConfig":
    """What the trainer of a stage is told: the shared table and the stage's own numbers."""
    from turnwise.trainer import TrainerConfig

    own: dict[str, Any] = {"lr": stage.lr, "batch_size": stage.batch_size, "warmup_steps": stage.warmup_steps}
    if isinstance(stage, RlStage):
        own |= {"clip_low": stage.clip_low, "clip_high": stage.clip_high}
    schedule = stage.schedule if isinstance(stage, RftStage) else "constant"
    shared = recipe.trainer.model_dump()
    return TrainerConfig(**shared, **own, schedule=schedule)


def open_trainer(recipe: Recipe, stage: RftStage | RlStage, weights: str, resume: Path | None) -> "Trainer":
    """The stage's trainer: on from its checkpoint `resume`, or fresh (a new optimizer) from `weights`."""
    from turnwise.trainer import Trainer

    config = trainer_config(recipe, stage)
    return Trainer(weights, config) if resume is None else Trainer.load(resume, config)


def stored_weights(path: Path) -> dict[str, Any]:
    """The weights of a checkpoint by name, for `policy.update_weights`."""
    from transformers import AutoModelForCausalLM

    return dict(AutoModelForCausalLM.from_pretrained(path, dtype="float32").state_dict())
