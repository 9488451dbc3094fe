import pytest

from turnwise.report.read import read_run
from turnwise.report.record import StageSpan


def test_stages_lie_end_to_end(finished_run):
    run_dir, _ = finished_run
    assert read_run(run_dir).spans == (StageSpan("rft", 0, 1), StageSpan("rl-1", 1, 5), StageSpan("rl-2", 5, 7))


def test_evaluations_stand_after_the_iterations_behind_them(finished_run):
    run_dir, _ = finished_run
    points = read_run(run_dir).evaluations
    assert [(point.stage, point.x) for point in points] == [
        *(("base", 0), ("rft", 1), ("rl-1", 3), ("rl-1", 5), ("rl-2", 7)),
    ]


def test_training_episodes_stand_before_their_update(finished_run):
    run_dir, _ = finished_run
    run = read_run(run_dir)
    assert [point.x for point in run.training] == [0, 1, 2, 3, 4, 5, 6]
    last = run.training[-1].result
    assert (last.tasks, last.runs) == (3, 4)  # the lost episode's task is not among them


def test_the_table_shows_the_end_of_each_stage(finished_run):
    run_dir, results = finished_run
    assert list(read_run(run_dir).stages) == results


def test_samples_are_of_both_kinds_and_of_every_stage(finished_run):
    run_dir, _ = finished_run
    samples = read_run(run_dir).samples
    rooms = {(sample.key.stage, sample.key.purpose) for sample in samples}
    assert rooms == {
        *(("base", "evaluate"), ("rft", "collect"), ("rft", "evaluate"), ("rl-1", "train"), ("rl-1", "evaluate")),
        *(("rl-2", "train"), ("rl-2", "evaluate")),
    }
    base = [sample for sample in samples if sample.key.stage == "base"]
    assert {sample.trajectory.resolved for sample in base} == {True, False}
    assert not any(sample.trajectory.stop_reason.is_infrastructure for sample in samples)
    assert [role for role, _ in base[0].opening] == ["system", "user"]


def test_a_trained_sample_knows_its_whole_group(finished_run):
    run_dir, _ = finished_run
    sample = next(s for s in read_run(run_dir).samples if s.key.purpose == "train")
    assert list(sample.sibling_rewards) == [0, 1, 2, 3]
    assert sample.sibling_rewards[sample.key.member] == pytest.approx(sample.trajectory.reward)
