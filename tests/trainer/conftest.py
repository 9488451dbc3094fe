"""A small real model and trajectories that it sampled itself."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from turnwise.types import FormatError, StopReason, Trajectory, Turn

VOCABULARY, POSITIONS = 67, 96


@pytest.fixture
def model() -> Qwen2ForCausalLM:
    """A two-layer Qwen2 with spread-out predictions (entropy well under log V, so that a loss has something to say)."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        initializer_range=0.25,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).float().eval()


def make_turn(index: int, start: int, stop: int, format_error: FormatError | None = None) -> Turn:
    command = None if format_error else "ls"
    return Turn(index, "", command, format_error, "", 0, start, stop, policy_version=0, sample_s=0.0, exec_s=0.0)


@pytest.fixture
def sample(model: Qwen2ForCausalLM) -> Callable[..., Trajectory]:
    """Return a function that plays an episode of two turns: 5 prompt, `first` sampled, 4 observed, `second` sampled."""

    def play(
        seed: int, first: int = 6, second: int = 9, error: FormatError | None = None, top_k: int = 0
    ) -> Trajectory:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, VOCABULARY, (5 + first + 4 + second,), generator=generator)
        mask = torch.zeros(len(ids), dtype=torch.bool)
        mask[5 : 5 + first] = mask[9 + first :] = True
        behavior = torch.zeros(len(ids))
        with torch.no_grad():
            for position in mask.nonzero().flatten().tolist():
                logits = model(ids[:position].unsqueeze(0)).logits[0, -1]
                drawn = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf) if top_k else logits
                ids[position] = torch.multinomial(drawn.softmax(-1), 1, generator=generator)
                behavior[position] = logits.log_softmax(-1)[ids[position]]
        turns = (make_turn(0, 5, 5 + first, error), make_turn(1, 9 + first, len(ids)))
        return Trajectory(
            f"test/{seed}", "task", np.asarray(ids), np.asarray(mask), np.asarray(behavior), turns, StopReason.SUBMITTED
        )

    return play
