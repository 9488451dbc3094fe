"""The optimizer step: imitation of kept trajectories, then DAPO on groups (PAPER.md, phases 1 and 2)."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from turnwise.algorithms import DapoLoss, Mismatch, dapo_loss, imitation_loss, logprob_mismatch
from turnwise.errors import InputError, LogprobMismatch, TrainingError
from turnwise.trainer.batches import (
    Example,
    MicroBatch,
    credit,
    imitated_mask,
    make_example,
    micro_batches,
    split_evenly,
)
from turnwise.trainer.checkpoint import load_training_state, save_checkpoint
from turnwise.trainer.config import TrainerConfig, learning_rate
from turnwise.trainer.logprobs import chunked_logprobs
from turnwise.trainer.model import ScoringModel, load_network
from turnwise.types import Group, Trajectory

# A truncated or cooled sampler is told from chance by this many standard errors, and from rounding by this share.
_SURPRISE_Z, _SURPRISE_SHARE = 6.0, 0.1


@dataclass(frozen=True)
class StepMetrics:
    """What one optimizer step measured, before its update. Means are over the step's `tokens`; entropy is in nats.

    `step` counts from 1 over the trainer's life. `grad_norm` is before clipping. The clip fractions are of tokens whose
    gradient the lower or upper bound took; they and the ratio are None for imitation, which has no ratio.

    >>> StepMetrics(step=1, loss=0.7, entropy=1.2, grad_norm=0.4, lr=1e-6, tokens=900, trajectories=8).ratio_mean
    """

    step: int
    loss: float
    entropy: float
    grad_norm: float
    lr: float
    tokens: int
    trajectories: int
    clip_fraction_low: float | None = None
    clip_fraction_high: float | None = None
    ratio_mean: float | None = None
    ratio_max: float | None = None


Objective = Callable[[torch.Tensor, MicroBatch, int], tuple[torch.Tensor, DapoLoss | None]]
OnStep = Callable[[StepMetrics], None]


class Trainer:
    """Holds the weights and the optimizer; takes trajectories, gives metrics. Deterministic in the order of its input.

    `model` is a checkpoint folder, a hub name or a Hugging Face causal LM. See `TrainerConfig` for the numbers.

    Raises CheckpointError when the model cannot be used.

        trainer = Trainer("models/standin", TrainerConfig(lr=1e-4, batch_size=16))
        trainer.fine_tune(resolved)
        metrics = trainer.reinforce(groups)
        await policy.update_weights(trainer.state_dict(), version=1)
        trainer.save(run_dir / "checkpoints" / "rl-1-0001")
    """

    def __init__(self, model: Any, config: TrainerConfig) -> None:
        is_path = isinstance(model, str | Path)
        self.config = config
        self.step = 0
        self._source: str | Path | None = model if is_path else None
        self._model = ScoringModel(load_network(model) if is_path else model, config.device)
        self._optimizer = torch.optim.AdamW(
            _parameter_groups(self._model.network, config.weight_decay),
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
        )

    @classmethod
    def load(cls, directory: Path | str, config: TrainerConfig) -> Self:
        """Go on from a checkpoint that `save` wrote, bit by bit as if never stopped. Raises CheckpointError."""
        directory = Path(directory)
        step, optimizer = load_training_state(directory)
        trainer = cls(directory, config)
        trainer.step = step
        # The moments are the checkpoint's; learning rate, betas, epsilon and decay are the recipe's, as given now.
        groups = trainer._optimizer.state_dict()["param_groups"]
        trainer._optimizer.load_state_dict({"state": optimizer, "param_groups": groups})
        return trainer

    def save(self, directory: Path | str) -> None:
        """Write a checkpoint that `AutoModelForCausalLM.from_pretrained` and `Trainer.load` read.

        It appears whole or not at all. Raises StoreError when the disk refuses, leaving earlier checkpoints untouched.
        """
        optimizer = self._optimizer.state_dict()["state"]
        save_checkpoint(Path(directory), self._model.network, self.step, optimizer, self._source)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the weights by name, for `policy.update_weights`. They are the live tensors: the receiver copies."""
        return {name: value.detach() for name, value in self._model.network.state_dict().items()}

    def fine_tune(self, trajectories: Sequence[Trajectory], on_step: OnStep | None = None) -> list[StepMetrics]:
        """Imitate the trajectories once, in order: every sampled token but those of turns with a format error.

        `on_step` is called after each optimizer step. Raises InputError when there is nothing to imitate or a
        trajectory does not fit the model, TrainingError when the loss is no number.
        """
        examples = [self._example(trajectory, imitated_mask(trajectory)) for trajectory in trajectories]

        def objective(logprobs_N: torch.Tensor, batch: MicroBatch, total: int) -> tuple[torch.Tensor, None]:
            return imitation_loss(logprobs_N, torch.ones_like(batch.targets_N), total_tokens=total), None

        return self._train(examples, objective, on_step)

    def reinforce(
        self, items: Sequence[Group | tuple[Trajectory, float]], on_step: OnStep | None = None
    ) -> list[StepMetrics]:
        """Take one epoch of DAPO steps over groups, or over trajectories paired with their advantages, in order.

        What has advantage zero is dropped first; when nothing is left, no step is taken and the list is empty.
        The ratio's denominator is the sampling policy's recorded log-prob. Raises as `fine_tune`.
        """
        if not items:
            raise InputError("there is no group to reinforce; did every episode of the iteration fail?")
        pairs = [pair for item in items for pair in (credit([item]) if isinstance(item, Group) else [item])]
        examples = [
            self._example(trajectory, trajectory.action_mask_T, advantage)
            for trajectory, advantage in pairs
            if advantage != 0
        ]

        def objective(logprobs_N: torch.Tensor, batch: MicroBatch, total: int) -> tuple[torch.Tensor, DapoLoss]:
            found = dapo_loss(
                logprobs_N,
                batch.behavior_N,
                batch.advantages_N,
                torch.ones_like(batch.targets_N),
                clip_low=self.config.clip_low,
                clip_high=self.config.clip_high,
                total_tokens=total,
            )
            return found.loss, found

        return self._train(examples, objective, on_step) if examples else []

    def logprobs(self, trajectories: Sequence[Trajectory]) -> list[NDArray[np.float32]]:
        """Return each trajectory's log-probs [T] under the present weights, 0 where the action mask is False."""
        examples = [self._example(trajectory, trajectory.action_mask_T) for trajectory in trajectories]
        scored = [np.zeros(len(trajectory.token_ids_T), np.float32) for trajectory in trajectories]
        for batch, logprobs_N, _ in self._score_all(examples):
            start = 0
            for index in batch.indices:
                positions_N = examples[index].positions_N
                scored[index][positions_N] = logprobs_N[start : start + len(positions_N)].cpu().numpy()
                start += len(positions_N)
        return scored

    def mismatch(self, trajectories: Sequence[Trajectory]) -> Mismatch:
        """Compare the sampling engine's recorded log-probs with the present weights' own; costs one forward pass.

        Only meaningful while the weights are those that sampled. Raises InputError when no token was sampled.
        """
        examples = [self._example(trajectory, trajectory.action_mask_T) for trajectory in trajectories]
        scored = self._score_all(examples)
        parts = [(logprobs_N, batch.behavior_N, entropies_N) for batch, logprobs_N, entropies_N in scored]
        columns = list(zip(*parts, strict=True)) or [(torch.zeros(0),)] * 3
        return logprob_mismatch(*(torch.cat(column) for column in columns))

    def check_mismatch(self, trajectories: Sequence[Trajectory]) -> Mismatch:
        """Return `mismatch`, or raise LogprobMismatch where engine and trainer differ by more than `max_mismatch`.

        Give it episodes as they were sampled, **not picked by their outcome**: successes are less surprising than the
        policy's entropy says, and would look like truncated sampling. A handful of groups is enough.
        """
        found = self.mismatch(trajectories)
        if not found.mean_abs <= self.config.max_mismatch:
            raise LogprobMismatch(
                f"the sampling engine's and the trainer's log-probs differ by {found.mean_abs:.3g} nats on average, "
                f"over {found.tokens} tokens (largest {found.max_abs:.3g}, KL {found.kl:.3g}); max_mismatch allows "
                f"{self.config.max_mismatch:.3g}. Check that the engine holds the trainer's weights, samples at "
                "temperature 1, and agrees with it on precision and rotary scaling"
            )
        if abs(found.surprise_z) > _SURPRISE_Z and abs(found.surprise) > _SURPRISE_SHARE * found.entropy:
            raise LogprobMismatch(
                "the tokens were not drawn from the distribution whose log-probs came with them: their mean surprise "
                f"is {found.surprise + found.entropy:.3g} nats where its entropy is {found.entropy:.3g}, "
                f"{abs(found.surprise_z):.1f} standard errors apart over {found.tokens} tokens. Check the engine's "
                "effective parameters: temperature 1, and top_p, top_k, min_p and penalties all off"
            )
        return found

    def _example(self, trajectory: Trajectory, mask_T: NDArray[np.bool_], advantage: float = 0.0) -> Example:
        return make_example(
            trajectory,
            mask_T,
            advantage=advantage,
            max_tokens=self._model.max_tokens,
            vocabulary=self._model.vocabulary,
        )

    def _train(self, examples: Sequence[Example], objective: Objective, on_step: OnStep | None) -> list[StepMetrics]:
        examples = [example for example in examples if len(example.positions_N)]
        if not examples:
            raise InputError("there is no trajectory with a sampled token to train on")
        batches = split_evenly(len(examples), self.config.batch_size)
        end = self.config.total_steps or self.step + len(batches)
        if self.config.schedule == "cosine" and self.step + len(batches) > end:
            raise InputError(
                f"trainer: {len(batches)} more steps after {self.step} go past total_steps = {end}, the cosine's end"
            )
        metrics = []
        with _threads(self.config.threads):
            for batch in batches:
                metrics.append(self._optimizer_step(examples[batch], objective, end))
                if on_step is not None:
                    on_step(metrics[-1])
        return metrics

    def _optimizer_step(self, examples: Sequence[Example], objective: Objective, end: int) -> StepMetrics:
        total = sum(len(example.positions_N) for example in examples)
        lr = learning_rate(self.step, self.config, end)
        loss, entropy, counted = 0.0, 0.0, []
        for batch in micro_batches(examples, self.config.micro_batch_tokens, self.config.device):
            logprobs_N, entropies_N = self._score(batch)
            part, found = objective(logprobs_N, batch, total)
            part.backward()  # type: ignore[no-untyped-call]
            loss += float(part.detach())
            entropy += float(entropies_N.sum())
            counted += [found] if found is not None else []
        grad_norm = self._update(lr, loss)
        self.step += 1
        return StepMetrics(
            step=self.step,
            loss=loss,
            entropy=entropy / total,
            grad_norm=grad_norm,
            lr=lr,
            tokens=total,
            trajectories=len(examples),
            **_ratio_metrics(counted, total),
        )

    def _update(self, lr: float, loss: float) -> float:
        """Clip, step and forget the gradient; return its norm. Weights stay as they are when it is no number."""
        parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.config.grad_clip))
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            self._optimizer.zero_grad()
            raise TrainingError(
                f"optimizer step {self.step + 1} has loss {loss} and gradient norm {grad_norm}; it was not taken. "
                "Lower the learning rate, or look for damage in the last checkpoint"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self._optimizer.zero_grad()
        return grad_norm

    def _score(self, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        hidden_NH = self._model.hidden(batch.input_ids_BT).flatten(0, 1).index_select(0, batch.select_N)
        return chunked_logprobs(hidden_NH, batch.targets_N, self._model.head, self.config.logprob_chunk_tokens)

    def _score_all(self, examples: Sequence[Example]) -> list[tuple[MicroBatch, torch.Tensor, torch.Tensor]]:
        batches = micro_batches(examples, self.config.micro_batch_tokens, self.config.device)
        with _threads(self.config.threads), torch.no_grad():
            return [(batch, *self._score(batch)) for batch in batches]


def _parameter_groups(network: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices and leave vectors (norms, biases) alone, as is common; the paper does not say."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [each for each in parameters if each.dim() >= 2], "weight_decay": weight_decay},
        {"params": [each for each in parameters if each.dim() < 2], "weight_decay": 0.0},
    ]


def _ratio_metrics(counted: Sequence[DapoLoss], total: int) -> dict[str, float]:
    if not counted:
        return {}
    return {
        "clip_fraction_low": float(sum(found.clipped_low for found in counted)) / total,
        "clip_fraction_high": float(sum(found.clipped_high for found in counted)) / total,
        "ratio_mean": float(sum(found.ratio_sum for found in counted)) / total,
        "ratio_max": max(float(found.ratio_max) for found in counted),
    }


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use `count` CPU threads for a while: the setting is the process's, the engine's too."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
