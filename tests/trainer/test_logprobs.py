import pytest
import torch
from torch import nn

from turnwise.trainer.logprobs import chunked_logprobs


def made() -> tuple[torch.Tensor, torch.Tensor, nn.Linear]:
    torch.manual_seed(0)
    hidden = torch.randn(23, 16, requires_grad=True)
    return hidden, torch.randint(0, 101, (23,)), nn.Linear(16, 101, bias=False)


@pytest.mark.parametrize("chunk_tokens", [1, 7, 22, 23, 100])
def test_chunks_equal_the_full_softmax_forward_and_backward(chunk_tokens: int) -> None:
    hidden, targets, head = made()
    weights = torch.randn(23)
    full = head(hidden).log_softmax(-1)
    expected = full[torch.arange(23), targets]
    expected_gradient = torch.autograd.grad((expected * weights).sum(), (hidden, head.weight))

    logprobs, entropies = chunked_logprobs(hidden, targets, head, chunk_tokens)
    gradient = torch.autograd.grad((logprobs * weights).sum(), (hidden, head.weight))

    torch.testing.assert_close(logprobs, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(entropies, -(full.exp() * full).sum(-1), atol=1e-5, rtol=0)
    assert not entropies.requires_grad
    for mine, other in zip(gradient, expected_gradient, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5)


def test_a_chunk_bounds_what_is_kept_for_the_way_back() -> None:
    hidden, targets, head = made()
    kept: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        chunked_logprobs(hidden, targets, head, 4)
    assert max(kept, default=0) < 4 * 101  # no [chunk, V] survives the forward pass, let alone [N, V]


def test_an_impossible_token_does_not_spoil_the_entropy() -> None:
    class Masked(nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.0, 0.0, -torch.inf]]).expand(len(hidden), 3)

    _, entropies = chunked_logprobs(torch.zeros(2, 4), torch.tensor([0, 1]), Masked(), 10)
    torch.testing.assert_close(entropies, torch.full((2,), 2.0).log())
