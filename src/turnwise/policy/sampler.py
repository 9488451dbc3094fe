"""Drawing tokens from logits: one uniform number per token through the inverse distribution function."""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from turnwise.errors import PolicyError
from turnwise.types import Sampling


def uniforms(seed: int, count: int) -> NDArray[np.float64]:
    """The noise of one response: `count` numbers in [0, 1) that depend on the seed alone."""
    return np.random.default_rng(seed).random(count)


def draw(logits_BV: Tensor, uniforms_B: list[float]) -> list[int]:
    """One token per row of float32 logits, by temperature-1 softmax. Raises PolicyError when a row is not finite.

    The distribution function is summed in float64, so a token's probability is off by no more than float32 rounding.
    """
    cumulative_BV = torch.softmax(logits_BV, -1).double().cumsum(-1)
    total_B = cumulative_BV[:, -1:]
    if not torch.isfinite(total_B).all():
        raise PolicyError("the model's logits are not finite: its weights have diverged")
    # Just below 1, so that rounding can't reach the total and so never a token of probability 0 behind the last.
    noise_B = torch.tensor(uniforms_B, dtype=torch.float64, device=logits_BV.device).clamp_(max=1 - 2**-40)
    tokens: list[int] = torch.searchsorted(cumulative_BV, noise_B[:, None] * total_B, right=True)[:, 0].tolist()
    return tokens


def logprobs(logits_BV: Tensor, token_ids: list[int]) -> list[float]:
    """Log-probabilities of the tokens under the unmodified temperature-1 distribution, in float32."""
    chosen_B1 = torch.tensor(token_ids, device=logits_BV.device)[:, None]
    values: list[float] = torch.log_softmax(logits_BV, -1).gather(1, chosen_B1)[:, 0].tolist()
    return values


def decoding_logits(logits_V: Tensor, history: list[int], sampling: Sampling) -> Tensor:
    """The logits after an evaluation's own decoding parameters, in the order of transformers' `generate`.

    Temperature 0 leaves the likeliest token alone.
    """
    from transformers.generation import logits_process as generation

    steps = generation.LogitsProcessorList()
    if sampling.repetition_penalty != 1.0:
        steps.append(generation.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature not in (0.0, 1.0):
        steps.append(generation.TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        steps.append(generation.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p != 1.0:
        steps.append(generation.TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        steps.append(generation.MinPLogitsWarper(sampling.min_p))
    ids = cast(torch.LongTensor, torch.tensor([history], device=logits_V.device))
    scores: Tensor = steps(ids, logits_V[None].clone())[0]
    if sampling.temperature == 0.0:
        return torch.full_like(scores, -torch.inf).scatter_(0, scores.argmax(-1, keepdim=True), 0.0)
    return scores
