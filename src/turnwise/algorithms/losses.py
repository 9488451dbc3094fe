"""The losses: imitation (rejection fine-tuning) and DAPO's clipped surrogate (PAPER.md, phases 1 and 2)."""

from dataclasses import dataclass

import torch

from turnwise.errors import InputError


@dataclass(frozen=True)
class DapoLoss:
    """The loss of one (micro-)batch and what was counted on its action tokens.

    `loss` carries the gradient. The rest are detached scalars in a form that adds up over micro-batches: counts and
    sums over action tokens, and the maximum.

    >>> found = dapo_loss(torch.tensor([0.0]), torch.tensor([0.0]), torch.tensor([2.0]), torch.tensor([True]))
    >>> found.loss, found.tokens
    (tensor(-2.), tensor(1))
    """

    loss: torch.Tensor
    tokens: torch.Tensor
    clipped_low: torch.Tensor
    clipped_high: torch.Tensor
    ratio_sum: torch.Tensor
    ratio_max: torch.Tensor


def dapo_loss(
    logprobs: torch.Tensor,
    behavior_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.3,
    total_tokens: int | None = None,
) -> DapoLoss:
    """Return DAPO's loss: -sum(min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)) / total_tokens over the action tokens.

    `logprobs` (current policy, with gradient), `behavior_logprobs` (the policy that sampled) and `mask` (True on action
    tokens) share one shape: [B, T], or [N] for tokens already picked out. `advantages` has that shape too, or is [B].
    The ratio r is exp(logprobs - behavior_logprobs). There is no KL term, and nothing is masked for length.

    `total_tokens` is the number of action tokens in the whole **optimizer batch**: with it, the losses of its
    micro-batches add up to the loss of the batch, whatever the split. None: this call holds the whole batch.
    What the mask leaves out may hold anything, NaN too: it reaches neither the loss nor the gradient.

    Raises InputError where the shapes do not fit, or where there is no action token to average over.

    Defaults are the paper's stage 1. Source: PAPER.md, phase 2; DAPO (arXiv:2503.14476), equations 8 and 12.
    """
    mask = mask.bool()
    if not logprobs.shape == behavior_logprobs.shape == mask.shape:
        shapes = ", ".join(str(tuple(each.shape)) for each in (logprobs, behavior_logprobs, mask))
        raise InputError(f"log-probs, behavior log-probs and mask must share one shape; got {shapes}")
    advantages = _per_token(advantages, logprobs.shape)
    divisor = int(mask.sum()) if total_tokens is None else total_tokens
    if divisor <= 0:
        raise InputError("the batch has no action token to average the loss over")
    log_ratio = torch.where(mask, logprobs - behavior_logprobs, 0.0)
    ratio = log_ratio.exp()
    surrogate = torch.min(ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)
    loss = -torch.where(mask, surrogate, 0.0).sum() / divisor
    detached = ratio.detach()
    return DapoLoss(
        loss=loss,
        tokens=mask.sum(),
        clipped_low=(mask & (detached < 1 - clip_low) & (advantages < 0)).sum(),
        clipped_high=(mask & (detached > 1 + clip_high) & (advantages > 0)).sum(),
        ratio_sum=torch.where(mask, detached, 0.0).sum(),
        ratio_max=torch.where(mask, detached, 0.0).amax() if mask.numel() else detached.new_zeros(()),
    )


def imitation_loss(logprobs: torch.Tensor, mask: torch.Tensor, *, total_tokens: int | None = None) -> torch.Tensor:
    """Return the mean negative log-likelihood of the tokens under `mask` (rejection fine-tuning, PAPER.md, phase 1).

    `logprobs` and `mask` share one shape. `total_tokens` as in `dapo_loss`. Raises InputError with no token to imitate.

    >>> imitation_loss(torch.tensor([[-1.0, -3.0, -9.0]]), torch.tensor([[True, True, False]]))
    tensor(2.)
    """
    mask = mask.bool()
    divisor = int(mask.sum()) if total_tokens is None else total_tokens
    if divisor <= 0:
        raise InputError("the batch has no token to imitate")
    return -torch.where(mask, logprobs, 0.0).sum() / divisor


def _per_token(advantages: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Spread one advantage per row over the row's tokens; advantages per token pass through."""
    if advantages.shape == shape:
        return advantages
    if advantages.dim() == len(shape) - 1 and advantages.shape == shape[:-1]:
        return advantages.unsqueeze(-1).expand(shape)
    raise InputError(f"advantages of shape {tuple(advantages.shape)} fit neither {tuple(shape)} nor its rows")
