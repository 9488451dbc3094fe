"""Training the stand-in from scratch: Muon on the matrices, AdamW on the rest, one pass of ever fresh samples."""

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import Qwen2Config, Qwen2ForCausalLM

AVERAGE_DECAY = 0.95  # the last twenty steps or so: what one batch teaches does not decide how the model behaves
# Tokens and the weight of each in the loss.
Sample = tuple[list[int], list[float]]


def new_model(vocabulary: int, seed: int) -> Qwen2ForCausalLM:
    """A Qwen2 of 3.4M parameters with random weights."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=192,
        intermediate_size=528,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal by Newton-Schulz steps (Jordan et al. 2024).

    torch.optim.Muon does the same in bfloat16, which is two orders of magnitude slower than float32 on a CPU.
    """

    def __init__(self, params: list[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Move every parameter once along its orthogonalized momentum."""
        for group in self.param_groups:
            for p in group["params"]:
                average = self.state[p].setdefault("average", torch.zeros_like(p))
                average.mul_(group["momentum"]).add_(p.grad)
                update = _orthogonal(p.grad.add(average, alpha=group["momentum"]))
                p.mul_(1 - 0.1 * group["lr"]).add_(update, alpha=-group["lr"] * max(1, p.shape[0] / p.shape[1]) ** 0.5)


def _orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: a warm-up, then a cosine to a tenth. `minutes` of this machine's time.

    Batches `by_length` waste nothing on padding, but where the length tells what a sample does (an early submission is
    short) each batch teaches one thing only, and how often the model does it hangs on the last few.
    """

    minutes: float
    batch: int = 8
    by_length: bool = True
    muon_lr: float = 0.02
    adamw_lr: float = 3e-3
    warmup_steps: int = 30


def fit(
    model: Qwen2ForCausalLM,
    draw: Callable[[random.Random], Sample],
    schedule: Schedule,
    seed: int,
    report: Callable[[float, int, int, float], None],
) -> None:
    """Train on samples from `draw` until the time is over, and leave the moving average of the weights.

    `report(minutes, step, tokens, loss)` after every step.
    """
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE_DECAY))
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = (Muon(matrices, schedule.muon_lr), torch.optim.AdamW(others, schedule.adamw_lr, betas=(0.9, 0.95)))
    peaks = (schedule.muon_lr, schedule.adamw_lr)
    start, tokens = time.monotonic(), 0
    for step, (ids_BT, weights_BT) in enumerate(_batches(draw, schedule, seed)):
        done = (time.monotonic() - start) / 60 / schedule.minutes
        if done >= 1:
            break
        rate = min(1.0, (step + 1) / schedule.warmup_steps) * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))
        loss = _loss(model, ids_BT, weights_BT)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * rate
            optimizer.step()
        averaged.update_parameters(model)
        model.zero_grad()
        tokens += int((weights_BT > 0).sum())
        report((time.monotonic() - start) / 60, step, tokens, loss.item())
    model.load_state_dict(averaged.module.state_dict())


def _loss(model: Qwen2ForCausalLM, ids_BT: torch.Tensor, weights_BT: torch.Tensor) -> torch.Tensor:
    hidden = model.model(ids_BT).last_hidden_state[:, :-1]
    weights = weights_BT[:, 1:]
    counted = weights > 0
    losses = cross_entropy(model.lm_head(hidden[counted]), ids_BT[:, 1:][counted], reduction="none")
    return (losses * weights[counted]).sum() / weights[counted].sum()


def _batches(
    draw: Callable[[random.Random], Sample], schedule: Schedule, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches, right-padded: ids [B, T] and loss weights [B, T]."""
    rng = random.Random(seed)
    while True:
        pool = [draw(rng) for _ in range(32 * schedule.batch)]
        if schedule.by_length:
            pool.sort(key=lambda sample: len(sample[0]))
        batches = [pool[at : at + schedule.batch] for at in range(0, len(pool), schedule.batch)]
        rng.shuffle(batches)
        for batch in batches:
            longest = max(len(ids) for ids, _ in batch)
            ids_BT = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in batch])
            weights_BT = torch.tensor([weights + [0.0] * (longest - len(weights)) for _, weights in batch])
            yield ids_BT, weights_BT
