"""Log-probs of chosen tokens without the [tokens, vocabulary] logits of a whole batch, forward or backward."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def chunked_logprobs(
    hidden_NH: torch.Tensor, targets_N: torch.Tensor, head: nn.Module, chunk_tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log p(target) with gradient and the distribution's entropy without, each float32 of shape [N], in nats.

    `head` projects hidden states [n, H] to logits [n, V]; the distribution is their softmax at temperature 1. At most
    `chunk_tokens` rows of logits exist at once: a chunk's logits are thrown away and made again on the way back.
    """
    if len(hidden_NH) <= chunk_tokens:
        return _score(hidden_NH, targets_N, head)
    spans = [slice(start, start + chunk_tokens) for start in range(0, len(hidden_NH), chunk_tokens)]
    pieces = [
        checkpoint(_score, hidden_NH[span], targets_N[span], head, use_reentrant=False, preserve_rng_state=False)
        for span in spans
    ]
    return torch.cat([piece[0] for piece in pieces]), torch.cat([piece[1] for piece in pieces])


def _score(hidden_NH: torch.Tensor, targets_N: torch.Tensor, head: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    logprobs_NV = head(hidden_NH).float().log_softmax(-1)
    chosen_N = logprobs_NV.gather(-1, targets_N.unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():  # after what has a gradient: the recomputation stops before it
        entropies_N = torch.special.entr(logprobs_NV.exp()).sum(-1)  # entr(0) is 0, where 0 * log 0 would be NaN
    return chosen_N, entropies_N
