"""What a run says while it goes on."""

import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from rich.console import Console

from turnwise.pipeline.progress import Progress, Tally
from turnwise.types import StopReason, Trajectory, Turn, Verdict, VerdictKind


def ended(tokens: int, resolved: bool) -> Trajectory:
    verdict = Verdict(VerdictKind.RESOLVED if resolved else VerdictKind.UNRESOLVED)
    ids, mask = np.zeros(tokens, np.int64), np.ones(tokens, np.bool_)
    turn = Turn(0, "", "submit", None, "", 0, 0, tokens, 0, 0.1, 0.1)
    none = np.zeros(tokens, np.float32)
    return Trajectory("e", "t", ids, mask, none, (turn,), StopReason.SUBMITTED, verdict=verdict)


def ticking(step_s: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += step_s


def test_the_time_to_go_counts_only_what_was_done_now() -> None:
    tally = Tally("rl-1 1/2", total=10)
    for number in range(4):
        tally.add(ended(50, resolved=number == 0), resumed=number < 2)
    assert tally.line(10.0) == "rl-1 1/2: 4/10 episodes, 1 resolved (25%), 10 tokens/s, 0:30 to go"


def test_verdicts_out_of_the_ordinary_are_told() -> None:
    tally = Tally("rl-1", total=2)
    verdict = Verdict(VerdictKind.SUSPECTED, rules=("frames",))
    tally.add(replace(ended(50, resolved=True), verdict=verdict), resumed=False)
    tally.add(ended(50, resolved=True), resumed=False)
    assert tally.line(10.0) == "rl-1: 2/2 episodes, 2 resolved (100%), 1 suspected (frames 1), 10 tokens/s"


def test_infrastructure_failures_are_told_by_cause() -> None:
    tally = Tally("rl-1", total=2, failures={"sandbox_failure": 3, "policy_failure": 0})
    assert "3 sandbox_failure" in tally.line(1.0)
    assert "policy_failure" not in tally.line(1.0)


def test_without_a_terminal_lines_come_now_and_then_and_at_the_end() -> None:
    shown, clock = io.StringIO(), ticking(5.0)
    progress = Progress(Console(file=shown, width=200), clock=lambda: next(clock))
    with progress.phase("base", total=12) as phase:
        for _ in range(12):
            phase.episode(ended(10, resolved=True), False, {})
    lines = shown.getvalue().splitlines()
    assert 2 <= len(lines) < 12
    assert lines[-1].startswith("base: 12/12 episodes, 12 resolved (100%)")
