"""An evaluation for real: a scripted policy, sandboxes, hidden tests, the journal."""

from dataclasses import replace

import pytest

from turnwise.agent import ChatRenderer
from turnwise.evaluation import evaluate
from turnwise.rollout import Collector
from turnwise.store import EpisodeKey, Journal

from ..rollout.world import CONFIG, FIX, SUBMIT, HistoryPolicy, make_tokenizer


def script(session, turn):
    """Solves the first task in runs 0 and 1, the second never; run 2 answers in the wrong format once."""
    key = EpisodeKey.parse(session)
    if key.task_id.endswith("-2"):
        return SUBMIT
    opening = FIX if key.member < 2 else "I am lost."
    return [opening, SUBMIT][turn]


@pytest.fixture
def journal(tmp_path):
    with Journal.open(tmp_path / "journal.sqlite", recipe_hash="r") as journal:
        yield journal


async def test_runs_every_task_several_times_and_sums_up(small_world, backend, journal):
    tokenizer = make_tokenizer()
    policy = HistoryPolicy(script, tokenizer)
    collector = Collector(
        policy=policy,
        renderer=ChatRenderer(tokenizer),
        backend=backend,
        environments=small_world,
        journal=journal,
        agent_config=CONFIG,
        seed=1,
    )
    tasks = [small_world.task, replace(small_world.task, instance_id="small__calc-2")]
    seen = []
    result = await evaluate(collector, tasks, stage="rft", runs=3, k=2, iteration=1, progress=seen.append)

    assert (result.name, result.runs, result.tasks, result.k) == ("rft", 3, 2, 2)
    assert result.pass_at_1 == pytest.approx((0.5 + 0.5 + 0.0) / 3)
    assert result.sem == pytest.approx(1 / 6)
    assert result.pass_at_k == pytest.approx((1.0 + 0.0) / 2)
    assert result.submit_rate == 1.0
    assert result.mean_turns == pytest.approx((3 * 2 + 3 * 1) / 6)
    assert result.format_error_rate == pytest.approx(1 / 9)
    assert (result.verdicts, result.tripwires) == ({"resolved": 2, "empty_patch": 4}, {})
    assert len(seen) == 6
    assert {(e.key.stage, e.key.purpose, e.key.iteration) for e in journal.episodes()} == {("rft", "evaluate", 1)}

    asked = len(policy.asked)
    assert await evaluate(collector, tasks, stage="rft", runs=3, k=2, iteration=1) == result
    assert len(policy.asked) == asked, "episodes that the journal holds are not run again"
