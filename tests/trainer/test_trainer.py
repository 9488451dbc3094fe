"""The trainer's steps on a small real model, against plain torch over the full softmax."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, Qwen2ForCausalLM

from turnwise.algorithms import dapo_loss
from turnwise.errors import CheckpointError, InputError, LogprobMismatch, TrainingError
from turnwise.trainer import StepMetrics, Trainer, TrainerConfig
from turnwise.types import FormatError, Group, Trajectory

MakeTrajectory = Callable[..., Trajectory]
Pairs = list[tuple[Trajectory, float]]


@pytest.fixture
def pairs(sample: MakeTrajectory) -> Pairs:
    advantages = (1.2, -0.7, 0.4, -0.9, 2.0)
    return [(sample(seed, first=2 + 3 * seed, second=5 + seed), advantages[seed]) for seed in range(5)]


def off_policy(pairs: Pairs) -> Pairs:
    """The same pairs as if sampled by another policy, far enough for both clips to bite."""
    generator = np.random.default_rng(0)

    def moved(trajectory: Trajectory) -> Trajectory:
        noise = generator.normal(0, 0.4, len(trajectory.token_ids_T)).astype(np.float32)
        return replace(
            trajectory, behavior_logprobs_T=trajectory.behavior_logprobs_T + noise * trajectory.action_mask_T
        )

    return [(moved(trajectory), advantage) for trajectory, advantage in pairs]


def full_logprobs(model: Qwen2ForCausalLM, trajectory: Trajectory) -> torch.Tensor:
    """Log-probs [T] the plain way: one trajectory, no padding, all logits; 0 for the first token."""
    ids = torch.from_numpy(trajectory.token_ids_T)
    logprobs = model(ids.unsqueeze(0)).logits[0, :-1].log_softmax(-1)
    return torch.cat([torch.zeros(1), logprobs.gather(-1, ids[1:].unsqueeze(-1)).squeeze(-1)])


def plain_loss(model: Qwen2ForCausalLM, pairs: Pairs) -> torch.Tensor:
    total = sum(int(trajectory.action_mask_T.sum()) for trajectory, _ in pairs)
    parts = [
        dapo_loss(
            full_logprobs(model, trajectory),
            torch.from_numpy(trajectory.behavior_logprobs_T),
            torch.tensor(advantage),
            torch.from_numpy(trajectory.action_mask_T),
            total_tokens=total,
        ).loss
        for trajectory, advantage in pairs
    ]
    return torch.stack(parts).sum()


def weights(model: Qwen2ForCausalLM) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def stepped(model: Qwen2ForCausalLM, start: dict[str, torch.Tensor], loss: torch.Tensor, lr: float) -> None:
    """One AdamW step of torch's own from `start`, without decay, clipped at 1."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    assert any(not torch.equal(start[name], value) for name, value in model.state_dict().items())


def assert_close(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], atol: float) -> None:
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], atol=atol, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_logprobs_are_the_engines(model: Qwen2ForCausalLM, pairs: Pairs) -> None:
    trajectories = [trajectory for trajectory, _ in pairs]
    scored = Trainer(model, TrainerConfig(micro_batch_tokens=60, logprob_chunk_tokens=7)).logprobs(trajectories)
    for ours, trajectory in zip(scored, trajectories, strict=True):
        np.testing.assert_allclose(ours, trajectory.behavior_logprobs_T, atol=2e-6)
        assert ours.dtype == np.float32


@pytest.mark.parametrize(("micro_batch_tokens", "chunk"), [(10_000, 1024), (10_000, 5), (60, 1024), (1, 3)])
def test_a_step_is_the_plain_step_whatever_the_micro_batching(
    model: Qwen2ForCausalLM, pairs: Pairs, micro_batch_tokens: int, chunk: int
) -> None:
    pairs, start = off_policy(pairs), weights(model)
    expected_loss = plain_loss(model, pairs)
    gradient = torch.autograd.grad(plain_loss(model, pairs), list(model.parameters()))
    stepped(model, start, expected_loss, lr=1e-3)
    expected = weights(model)

    model.load_state_dict(start)
    config = TrainerConfig(
        lr=1e-3, weight_decay=0.0, batch_size=8, micro_batch_tokens=micro_batch_tokens, logprob_chunk_tokens=chunk
    )
    (metrics,) = Trainer(model, config).reinforce(pairs)
    assert metrics.loss == pytest.approx(float(expected_loss.detach()), abs=1e-6)
    norm = torch.stack([piece.norm() for piece in gradient]).norm()
    assert metrics.grad_norm == pytest.approx(float(norm), rel=1e-4)
    # Adam divides a gradient by its own size: where one is next to nothing, rounding may turn a step of at most lr.
    assert_close(weights(model), expected, atol=1e-4)


def test_metrics_of_a_step(model: Qwen2ForCausalLM, pairs: Pairs) -> None:
    moved = off_policy(pairs)
    ratios, advantages, entropies = [], [], []
    with torch.no_grad():
        for trajectory, advantage in moved:
            mask = trajectory.action_mask_T
            behavior = torch.from_numpy(trajectory.behavior_logprobs_T)
            ratios.append((full_logprobs(model, trajectory) - behavior).exp()[mask])
            advantages.append(torch.full((int(mask.sum()),), advantage))
            logits = model(torch.from_numpy(trajectory.token_ids_T).unsqueeze(0)).logits[0]
            entropies.append(torch.distributions.Categorical(logits=logits[np.flatnonzero(mask) - 1]).entropy())
    ratio, advantage = torch.cat(ratios), torch.cat(advantages)
    low, high = ((ratio < 0.8) & (advantage < 0)).float(), ((ratio > 1.3) & (advantage > 0)).float()

    (metrics,) = Trainer(model, TrainerConfig(lr=1e-3, micro_batch_tokens=60)).reinforce(moved)
    assert low.sum() > 0
    assert high.sum() > 0
    assert metrics.clip_fraction_low == pytest.approx(float(low.mean()))
    assert metrics.clip_fraction_high == pytest.approx(float(high.mean()))
    assert metrics.ratio_mean == pytest.approx(float(ratio.mean()), rel=1e-5)
    assert metrics.ratio_max == pytest.approx(float(ratio.max()), rel=1e-5)
    assert metrics.entropy == pytest.approx(float(torch.cat(entropies).mean()), rel=1e-5)
    assert (metrics.step, metrics.tokens, metrics.trajectories, metrics.lr) == (1, len(ratio), 5, 1e-3)


def test_groups_are_credited_and_zero_advantages_dropped(model: Qwen2ForCausalLM, sample: MakeTrajectory) -> None:
    def group(*rewards: float) -> Group:
        members = (replace(sample(seed), rewards={"final": reward}) for seed, reward in enumerate(rewards))
        return Group("task", tuple(members))

    trainer = Trainer(model, TrainerConfig(lr=1e-3))
    before = weights(model)
    assert trainer.reinforce([group(1.0, 1.0), group(0.0, 0.0, 0.0)]) == []
    assert trainer.reinforce([(sample(0), 0.0)]) == []
    assert_close(weights(model), before, atol=0.0)
    (metrics,) = trainer.reinforce([group(1.0, 1.0), group(1.0, 0.0, 0.5)])
    assert metrics.trajectories == 2  # 0.5 is its group's mean


@pytest.mark.parametrize("train", ["reinforce", "fine_tune"])
def test_what_is_not_trained_has_no_influence(model: Qwen2ForCausalLM, sample: MakeTrajectory, train: str) -> None:
    """Observation tokens get no gradient of their own, and neither, when imitating, do turns with a format error."""
    trajectory = sample(1, error=FormatError.MULTIPLE_COMMANDS)
    mask_T = trajectory.action_mask_T.copy()
    if train == "fine_tune":
        mask_T[5:11] = False
    logprobs = full_logprobs(model, trajectory)
    expected = -logprobs[torch.from_numpy(mask_T)].mean()
    gradient = torch.autograd.grad(expected, list(model.parameters()))
    norm = float(torch.stack([piece.norm() for piece in gradient]).norm())
    trainer = Trainer(model, TrainerConfig(lr=1e-3))
    # On policy the surrogate's gradient with A = 1 is that of the mean log-likelihood of what trains, and of no more.
    (metrics,) = trainer.reinforce([(trajectory, 1.0)]) if train == "reinforce" else trainer.fine_tune([trajectory])
    assert metrics.tokens == int(mask_T.sum())
    assert metrics.grad_norm == pytest.approx(norm, rel=1e-4)


def test_imitation_lowers_its_loss(model: Qwen2ForCausalLM, sample: MakeTrajectory) -> None:
    trajectories = [sample(seed) for seed in range(6)]
    trainer = Trainer(model, TrainerConfig(lr=3e-3, batch_size=3))
    losses = [metrics.loss for _ in range(8) for metrics in trainer.fine_tune(trajectories)]
    assert losses[-1] < 0.7 * losses[0]
    assert trainer.step == 16


def test_reinforcement_moves_probability_towards_advantage(model: Qwen2ForCausalLM, sample: MakeTrajectory) -> None:
    good, bad = sample(1), sample(2)
    trainer = Trainer(model, TrainerConfig(lr=1e-3))
    before = [float(each.sum()) for each in trainer.logprobs([good, bad])]
    trainer.reinforce([(good, 1.0), (bad, -1.0)])
    after = [float(each.sum()) for each in trainer.logprobs([good, bad])]
    assert after[0] > before[0] + 0.1
    assert after[1] < before[1] - 0.1


def test_steps_are_reported_as_they_are_taken(model: Qwen2ForCausalLM, pairs: Pairs) -> None:
    seen: list[StepMetrics] = []
    returned = Trainer(model, TrainerConfig(lr=1e-3, batch_size=2)).reinforce(pairs, on_step=seen.append)
    assert seen == returned
    assert [(each.step, each.trajectories) for each in seen] == [(1, 1), (2, 2), (3, 2)]


def test_the_cosine_spans_the_call_or_the_total(model: Qwen2ForCausalLM, pairs: Pairs) -> None:
    config = TrainerConfig(lr=1.0, batch_size=2, schedule="cosine", warmup_steps=1)
    rates = [metrics.lr for metrics in Trainer(model, config).reinforce(pairs)]
    assert rates == pytest.approx([1.0, 1.0, 0.5])
    trainer = Trainer(model, replace(config, lr=1e-4, total_steps=4))
    trainer.reinforce(pairs)
    with pytest.raises(InputError, match="3 more steps after 3 go past total_steps = 4"):
        trainer.reinforce(pairs)


def test_matching_engine_passes_the_check(model: Qwen2ForCausalLM, sample: MakeTrajectory) -> None:
    found = Trainer(model, TrainerConfig(max_mismatch=1e-5)).check_mismatch([sample(seed) for seed in range(20)])
    assert found.tokens == 300
    assert found.max_abs < 1e-5
    assert 0 <= found.kl < 1e-9
    assert abs(found.surprise_z) < 4


def test_an_engine_with_other_weights_is_stopped(model: Qwen2ForCausalLM, sample: MakeTrajectory) -> None:
    trajectories = [sample(seed) for seed in range(4)]
    trainer = Trainer(model, TrainerConfig(lr=1e-2, max_mismatch=0.01))
    trainer.fine_tune(trajectories)
    with pytest.raises(
        LogprobMismatch, match=r"differ by [\d.]+ nats.*60 tokens.*max_mismatch allows 0.01.*Check that"
    ):
        trainer.check_mismatch(trajectories)


def test_an_engine_that_truncates_in_silence_is_stopped(model: Qwen2ForCausalLM, sample: MakeTrajectory) -> None:
    trajectories = [sample(seed, first=30, second=30, top_k=8) for seed in range(10)]
    trainer = Trainer(model, TrainerConfig())
    assert trainer.mismatch(trajectories).mean_abs < 1e-5  # the log-probs that it reports are right
    with pytest.raises(LogprobMismatch, match=r"not drawn from the distribution.*top_k.*off"):
        trainer.check_mismatch(trajectories)


def test_a_loss_that_is_no_number_takes_no_step(model: Qwen2ForCausalLM, sample: MakeTrajectory) -> None:
    trainer = Trainer(model, TrainerConfig(lr=1e-3))
    trajectory = sample(0)
    trainer.fine_tune([trajectory])
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    before = weights(model)
    with pytest.raises(TrainingError, match="optimizer step 2 has loss nan"):
        trainer.fine_tune([trajectory])
    torch.testing.assert_close(weights(model), before, equal_nan=True, atol=0, rtol=0)
    assert trainer.step == 1


def test_an_empty_batch_is_an_error(model: Qwen2ForCausalLM, sample: MakeTrajectory) -> None:
    trainer = Trainer(model, TrainerConfig())
    unsampled = replace(sample(0), action_mask_T=np.zeros(24, np.bool_))
    with pytest.raises(InputError, match="no trajectory with a sampled token"):
        trainer.fine_tune([])
    with pytest.raises(InputError, match="no trajectory with a sampled token"):
        trainer.reinforce([(unsampled, 1.0)])
    with pytest.raises(InputError, match="no group to reinforce"):
        trainer.reinforce([])
    with pytest.raises(InputError, match="no sampled token"):
        trainer.mismatch([unsampled])


def test_a_trajectory_beyond_the_models_positions_is_named(model: Qwen2ForCausalLM, sample: MakeTrajectory) -> None:
    trajectory = sample(0, first=50, second=50)
    with pytest.raises(InputError, match=r'"test/0" has 109 tokens, more than the model\'s 96 positions'):
        Trainer(model, TrainerConfig()).fine_tune([trajectory])


def test_a_model_that_changes_its_logits_is_refused() -> None:
    config = Gemma2Config(
        vocab_size=67,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=2.0,
        final_logit_softcapping=5.0,
    )
    with pytest.raises(CheckpointError, match="Gemma2ForCausalLM changes its logits"):
        Trainer(Gemma2ForCausalLM(config), TrainerConfig())


def test_threads_are_given_back(model: Qwen2ForCausalLM, sample: MakeTrajectory) -> None:
    before = torch.get_num_threads()
    during: list[int] = []
    trainer = Trainer(model, TrainerConfig(threads=before + 1))
    trainer.fine_tune([sample(0)], on_step=lambda _: during.append(torch.get_num_threads()))
    assert during == [before + 1]
    assert torch.get_num_threads() == before
