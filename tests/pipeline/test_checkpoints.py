"""Checkpoints on disk: whole or absent, pruned, and their metrics with them."""

from pathlib import Path

import pytest

from turnwise.pipeline.checkpoints import Checkpoints


def fill(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"weights")


def test_the_latest_is_found_with_its_metrics(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest("rl-1") is None
    checkpoints.save("rl-1", 1, [{"loss": 1.0}], fill)
    checkpoints.save("rl-1", 2, [{"loss": 0.5}, {"loss": None}], fill)
    found = Checkpoints(tmp_path).latest("rl-1")
    assert found is not None
    assert (found.iteration, found.steps) == (2, ({"loss": 0.5}, {"loss": None}))
    assert (found.path / "model.safetensors").read_bytes() == b"weights"


def test_only_the_last_two_of_a_stage_stay_and_other_stages_are_left_alone(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("rft", 1, [], fill)
    for iteration in range(1, 12):
        checkpoints.save("rl-1", iteration, [], fill)
    assert sorted(path.name for path in (tmp_path / "rl-1").iterdir()) == ["0010", "0011"]
    assert checkpoints.latest("rft") is not None


def test_a_half_written_checkpoint_is_not_seen_and_goes_at_the_next_save(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)

    def dies(path: Path) -> None:
        fill(path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoints.save("rl-1", 1, [], dies)
    assert checkpoints.latest("rl-1") is None
    checkpoints.save("rl-1", 1, [], fill)
    assert [path.name for path in (tmp_path / "rl-1").iterdir()] == ["0001"]
