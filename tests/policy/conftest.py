"""Real, small, random models, their plain forward as the oracle, and an episode of turns against a policy."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from turnwise.types import Sampling

SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "initializer_range": 0.2,  # far from uniform, so that a wrong context shows in the log-probs
}
CONFIGS = {
    "qwen2": lambda **changes: Qwen2Config(**SIZES | {"tie_word_embeddings": True} | changes),
    "llama": lambda **changes: LlamaConfig(**SIZES | changes),
    "qwen3": lambda **changes: Qwen3Config(**SIZES | {"head_dim": 32} | changes),
    "gpt2": lambda **changes: GPT2Config(
        **{"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": 0.2}
        | {"bos_token_id": 0, "eos_token_id": 1}
        | changes
    ),
    "mistral": lambda **changes: MistralConfig(**SIZES | {"sliding_window": 16} | changes),
}
STOP = 3


def build_model(name="qwen2", seed=0, **changes):
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(CONFIGS[name](**changes), dtype=torch.float32).eval()


def plain_logits(model, token_ids):
    with torch.no_grad():
        return model(torch.tensor([list(token_ids)]), use_cache=False).logits[0]


def plain_logprobs(model, history, response):
    """The response's log-probs by one full forward of the unmodified model."""
    table = torch.log_softmax(plain_logits(model, [*history, *response]), -1)
    return [table[len(history) - 1 + i, token].item() for i, token in enumerate(response)]


async def play(policy, session, opening, turns=3, max_tokens=10, seed=0, observation=(7, 8, 9)):
    """An episode: [(history, sample)…], each turn's history holding everything before it."""
    history, played = list(opening), []
    for turn in range(turns):
        sampling = Sampling(max_tokens, stop_token_ids=(STOP,), seed=1000 * seed + turn)
        sample = await policy.sample(history, sampling, session)
        played.append((tuple(history), sample))
        history += [*sample.token_ids, *observation]
    return played


@pytest.fixture
def assert_parity():
    def check(model, played, bound=1e-5):
        for history, sample in played:
            np.testing.assert_allclose(sample.logprobs, plain_logprobs(model, history, sample.token_ids), atol=bound)

    return check


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(name="build_model")
def _build_model():
    return build_model


@pytest.fixture(name="plain_logits")
def _plain_logits():
    return plain_logits


@pytest.fixture(name="play")
def _play():
    return play
