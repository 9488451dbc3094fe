"""Parity with TRL's GRPOTrainer, loss_type="dapo": the oracle is its own `_compute_loss` on a small real model.

The trainer object is made without its __init__ (which wants datasets and reward functions): only what `_compute_loss`
reads is set. TRL pads the completions to one rectangle and takes tool output out with `tool_mask`, as our action mask.
"""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from transformers import Qwen2Config, Qwen2ForCausalLM
from trl import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head, nanstd

from turnwise.algorithms import dapo_loss, group_advantages

CLIP_LOW, CLIP_HIGH = 0.2, 0.3
PROMPT, ROWS, LENGTH = 5, 6, 9


def tiny_model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    return Qwen2ForCausalLM(config).float().eval()


def oracle(model: Qwen2ForCausalLM) -> GRPOTrainer:
    trainer = GRPOTrainer.__new__(GRPOTrainer)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    trainer.model = model
    trainer.accelerator = Accelerator(cpu=True)
    trainer.args = SimpleNamespace(delta=None, steps_per_generation=1)
    trainer.loss_type, trainer.importance_sampling_level = "dapo", "token"
    trainer.epsilon_low, trainer.epsilon_high, trainer.beta = CLIP_LOW, CLIP_HIGH, 0.0
    trainer.top_entropy_quantile, trainer.off_policy_mask_threshold = 1.0, None
    trainer.use_vllm, trainer.aux_loss_enabled, trainer._entropy_bonus_enabled = False, False, False
    trainer._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    return trainer


def make_batch(model: Qwen2ForCausalLM) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 61, (ROWS, PROMPT + LENGTH), generator=generator)
    lengths = torch.tensor([9, 4, 7, 9, 2, 6])
    completion = torch.arange(LENGTH) < lengths.unsqueeze(1)
    with torch.no_grad():
        logprobs = model_logprobs(model, ids)
    return {
        "prompt_ids": ids[:, :PROMPT],
        "prompt_mask": torch.ones(ROWS, PROMPT, dtype=torch.long),
        "completion_ids": ids[:, PROMPT:],
        "completion_mask": completion.long(),
        "tool_mask": (torch.rand(ROWS, LENGTH, generator=generator) < 0.7).long(),
        # far enough from the current policy that both clips bite
        "old_per_token_logps": logprobs + 0.4 * torch.randn(ROWS, LENGTH, generator=generator),
        "advantages": group_advantages([1.0, 0.0, 0.4, -0.3, 0.0, 1.0], delta=1e-4),
    }


def model_logprobs(model: Qwen2ForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    logits = model(ids).logits[:, PROMPT - 1 : -1]
    return logits.log_softmax(-1).gather(-1, ids[:, PROMPT:].unsqueeze(-1)).squeeze(-1)


def test_loss_gradient_and_clip_fractions_equal_trl() -> None:
    model = tiny_model()
    batch = make_batch(model)
    mask = (batch["completion_mask"] * batch["tool_mask"]).bool()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    ours = dapo_loss(
        model_logprobs(model, ids),
        batch["old_per_token_logps"],
        batch["advantages"],
        mask,
        clip_low=CLIP_LOW,
        clip_high=CLIP_HIGH,
    )
    our_gradient = torch.autograd.grad(ours.loss, list(model.parameters()))
    trainer = oracle(model)
    theirs = trainer._compute_loss(model, {**batch, "num_items_in_batch": mask.sum()})
    their_gradient = torch.autograd.grad(theirs, list(model.parameters()))

    torch.testing.assert_close(ours.loss, theirs, atol=1e-6, rtol=0)
    for mine, other in zip(our_gradient, their_gradient, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5)
    metrics = trainer._metrics["eval"]
    assert int(ours.clipped_low) > 0
    assert int(ours.clipped_high) > 0
    assert float(ours.clipped_low / ours.tokens) == pytest.approx(metrics["clip_ratio/low_mean"][0], abs=1e-6)
    assert float(ours.clipped_high / ours.tokens) == pytest.approx(metrics["clip_ratio/high_mean"][0], abs=1e-6)


def test_micro_batches_equal_trl_whole_batch() -> None:
    model = tiny_model()
    batch = make_batch(model)
    mask = (batch["completion_mask"] * batch["tool_mask"]).bool()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    parts = [
        dapo_loss(
            model_logprobs(model, ids[rows]),
            batch["old_per_token_logps"][rows],
            batch["advantages"][rows],
            mask[rows],
            clip_low=CLIP_LOW,
            clip_high=CLIP_HIGH,
            total_tokens=int(mask.sum()),
        ).loss
        for rows in torch.split(torch.arange(ROWS), [1, 3, 2])
    ]
    theirs = oracle(model)._compute_loss(model, {**batch, "num_items_in_batch": mask.sum()})
    torch.testing.assert_close(torch.stack(parts).sum(), theirs, atol=1e-6, rtol=0)


def test_advantages_equal_trl() -> None:
    rewards = torch.tensor([1.0, 0.0, 0.4, -0.3, 0.0, 1.0])
    theirs = (rewards - rewards.nanmean()) / (nanstd(rewards) + 1e-4)  # scale_rewards="group", as TRL computes it
    torch.testing.assert_close(group_advantages(rewards, delta=1e-4), theirs, atol=1e-6, rtol=0)
