from dataclasses import replace

import pytest

from turnwise.errors import InputError
from turnwise.trainer import TrainerConfig, learning_rate


def test_the_papers_fine_tuning_schedule() -> None:
    config = TrainerConfig(lr=5e-6, schedule="cosine", warmup_steps=10, total_steps=50)
    rates = [learning_rate(step, config, end=50) for step in range(51)]
    assert rates[0] == pytest.approx(5e-7)
    assert rates[9] == rates[10] == 5e-6
    assert rates[30] == pytest.approx(2.5e-6)
    assert rates[50] == 0.0
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_constant_after_warm_up() -> None:
    config = TrainerConfig(lr=2.0, warmup_steps=4)
    assert [learning_rate(step, config, end=3) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"batch_size": 0}, "batch_size must be above 0"),
        ({"clip_low": 1.0}, "clip_low must be below 1"),
        ({"clip_high": -0.1}, "clip_high must not be negative"),
        ({"schedule": "linear"}, '"cosine" or "constant"'),
        ({"total_steps": 10}, "total_steps has no effect"),
        ({"schedule": "cosine", "total_steps": 5, "warmup_steps": 5}, "must be below total_steps"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        replace(TrainerConfig(), **change)
