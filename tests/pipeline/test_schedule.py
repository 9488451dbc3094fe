"""What a stage's trainer is told of its learning rate."""

from pathlib import Path

import pytest

from turnwise.config import RlStage, load_recipe
from turnwise.pipeline.workshop import trainer_config
from turnwise.trainer import TrainerConfig, learning_rate

RECIPES = Path(__file__).parents[2] / "recipes"


def _config(recipe: str, stage: str, *overrides: str) -> TrainerConfig:
    loaded = load_recipe(RECIPES / recipe, overrides)
    return trainer_config(loaded, loaded.stage(stage))


def test_the_papers_rl_keeps_its_learning_rate() -> None:
    config = _config("paper.toml", "rl-2")
    assert (config.schedule, config.total_steps) == ("constant", None)


def test_a_cosine_of_rl_ends_with_the_stage() -> None:
    keys = [
        f"stages.rl-1.{key}"
        for key in ("iterations=6", "problems_per_iteration=3", "group_size=4", "batch_size=8", "warmup_steps=2")
    ]
    config = _config("quickstart.toml", "rl-1", *keys, 'stages.rl-1.schedule="cosine"')
    assert config.total_steps == 12  # 12 episodes an iteration are two batches
    rates = [learning_rate(step, config, config.total_steps) for step in range(13)]
    assert rates[1] == rates[2] == config.lr
    assert rates[7] == pytest.approx(config.lr / 2)
    assert rates[12] == 0


def test_a_warm_up_longer_than_the_stage_is_cut() -> None:
    config = _config(
        "quickstart.toml",
        "rl-1",
        "stages.rl-1.iterations=1",
        "stages.rl-1.batch_size=128",
        'stages.rl-1.schedule="cosine"',
    )
    assert (config.warmup_steps, config.total_steps) == (0, 1)


def test_stages_say_how_many_steps_they_can_take() -> None:
    stage = load_recipe(RECIPES / "paper.toml").stage("rl-1")
    assert isinstance(stage, RlStage)
    assert stage.max_steps == stage.iterations * 24  # 3,000 episodes an iteration, 128 a batch
