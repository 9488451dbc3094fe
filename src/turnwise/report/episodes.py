"""An episode as the page shows it: its token ribbon, why it was paid, and its turns."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean

from turnwise.report.record import Episode
from turnwise.types import Trajectory, Turn, Verdict, VerdictKind

_VERDICTS = {
    VerdictKind.RESOLVED: "the hidden tests accepted the patch",
    VerdictKind.RESOLVED_LOOSELY: "a test did not do what it does with the gold patch: scored, but not rewarded",
    VerdictKind.SUSPECTED: "the patch does what only reward hacks need: scored, but not rewarded",
    VerdictKind.UNRESOLVED: "a hidden test still fails",
    VerdictKind.EMPTY_PATCH: "the working tree was not changed, so there was nothing to test",
    VerdictKind.PATCH_DOES_NOT_APPLY: "the patch does not apply to a clean checkout",
    VerdictKind.TESTS_TIMED_OUT: "the hidden tests did not end in time",
    VerdictKind.TAMPERING: "tests pass with the patch whatever they ask for, so nothing that they report counts",
    VerdictKind.INFRASTRUCTURE_FAILURE: "the machine failed during verification, which says nothing about the patch",
}


@dataclass(frozen=True)
class Segment:
    """A run of tokens of one kind in the flat sequence: `sampled` by the policy, which training acts on, or read.

    >>> Segment(sampled=True, tokens=34, percent=12.5, label="turn 1: 34 sampled tokens").tokens
    34
    """

    sampled: bool
    tokens: int
    percent: float
    label: str


@dataclass(frozen=True)
class TurnView:
    """A turn with what its sampled tokens looked like to the policy: `mean_logprob` in nats, None where not known."""

    turn: Turn
    tokens: int
    mean_logprob: float | None


@dataclass(frozen=True)
class DiffLine:
    """One line of a unified diff and its kind: "added", "removed", "place" (headers) or "same"."""

    kind: str
    text: str


@dataclass(frozen=True)
class Payment:
    """Why the episode got its reward: in a sentence, and against its group (None where it had no siblings)."""

    reason: str
    group_mean: float | None
    above_mean: float | None


@dataclass(frozen=True)
class EpisodeView:
    """Everything the template needs of one episode."""

    episode: Episode
    ribbon: tuple[Segment, ...]
    turns: tuple[TurnView, ...]
    payment: Payment
    diff: tuple[DiffLine, ...]
    sampled_tokens: int
    unit: str  # of the sequence and its ribbon: an endpoint's own tokens are not known one by one
    other_outcomes: Mapping[str, int]

    @property
    def trajectory(self) -> Trajectory:
        """The episode's trajectory."""
        return self.episode.trajectory


def view_episode(episode: Episode) -> EpisodeView:
    """Shape one episode for the page; everything shown follows from the journal's record of it."""
    trajectory = episode.trajectory
    unit = "bytes" if any(turn.usage is not None for turn in trajectory.turns) else "tokens"
    return EpisodeView(
        episode=episode,
        ribbon=tuple(_ribbon(trajectory, unit)),
        turns=tuple(_view_turn(trajectory, turn) for turn in trajectory.turns),
        payment=_payment(episode),
        diff=tuple(_diff_lines(trajectory.patch)),
        sampled_tokens=int(trajectory.action_mask_T.sum()),
        unit=unit,
        other_outcomes=Counter(trajectory.verdict.pass_to_pass.values()) if trajectory.verdict else {},
    )


def _ribbon(trajectory: Trajectory, unit: str) -> Iterator[Segment]:
    total = len(trajectory.token_ids_T)
    position = 0
    for turn in trajectory.turns:
        name = "opening" if turn.index == 0 else f"observation of turn {turn.index}"
        yield _segment(False, turn.start - position, total, name, unit)
        yield _segment(True, turn.stop - turn.start, total, f"turn {turn.index + 1}", unit)
        position = turn.stop
    if position < total:
        yield _segment(False, total - position, total, "last observation", unit)


def _segment(sampled: bool, tokens: int, total: int, name: str, unit: str) -> Segment:
    kind = f"sampled {unit}" if sampled else f"{unit} read"
    return Segment(sampled, tokens, 100 * tokens / total, f"{name}: {tokens} {kind}")


def _view_turn(trajectory: Trajectory, turn: Turn) -> TurnView:
    logprobs = trajectory.behavior_logprobs_T[turn.start : turn.stop]
    known = len(logprobs) > 0 and turn.usage is None
    return TurnView(turn, turn.sampled_tokens, float(logprobs.mean()) if known else None)


def _payment(episode: Episode) -> Payment:
    trajectory = episode.trajectory
    reason = _reason(trajectory.verdict)
    if len(episode.sibling_rewards) < 2:
        return Payment(reason, None, None)
    mean = fmean(episode.sibling_rewards.values())
    return Payment(reason, mean, trajectory.reward - mean)


def _reason(verdict: Verdict | None) -> str:
    if verdict is None:
        return "never verified: the infrastructure ended the episode"
    wanted, kept = verdict.fail_to_pass.values(), verdict.pass_to_pass.values()
    counts = (
        f"{_passed(wanted)} of {len(wanted)} failing tests now pass, {_passed(kept)} of {len(kept)} others still do"
    )
    return _VERDICTS[verdict.kind] + (f" ({counts})" if wanted or kept else "")


def _passed(outcomes: Iterable[str]) -> int:
    return sum(outcome == "passed" for outcome in outcomes)


def _diff_lines(patch: str) -> Iterator[DiffLine]:
    for line in patch.splitlines():
        if line.startswith(("diff ", "index ", "--- ", "+++ ", "@@")):
            yield DiffLine("place", line)
        else:
            yield DiffLine({"+": "added", "-": "removed"}.get(line[:1], "same"), line)
