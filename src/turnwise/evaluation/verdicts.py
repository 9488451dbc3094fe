"""How many patches got which verdict, and what of that someone who reads figures should know."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from turnwise.types import StopReason, VerdictKind

_ORDINARY = {VerdictKind.RESOLVED, VerdictKind.UNRESOLVED, VerdictKind.EMPTY_PATCH}


class Judged(Protocol):
    """An ended episode. `verdict` is a VerdictKind, None where nothing was verified."""

    @property
    def stop_reason(self) -> StopReason:
        """Why it ended."""

    @property
    def verdict(self) -> str | None:
        """What verification said of its patch."""

    @property
    def rules(self) -> tuple[str, ...]:
        """The tripwires of a suspected patch."""


@dataclass(frozen=True)
class VerdictCounts:
    """Episodes by kind of verdict, in the order of `VerdictKind`, and by tripwire, the most frequent first.

    A patch that trips two rules counts for both.
    """

    verdicts: Mapping[str, int]
    tripwires: Mapping[str, int]


def count_verdicts(episodes: Iterable[Judged], lost: int = 0) -> VerdictCounts:
    """Count ended episodes by verdict.

    What the infrastructure ended counts as its failure, and so do `lost` further ones that it left nothing of; what is
    still to be verified does not count.
    """
    kinds: Counter[str] = Counter({VerdictKind.INFRASTRUCTURE_FAILURE: lost})
    rules: Counter[str] = Counter()
    for episode in episodes:
        if episode.stop_reason.is_infrastructure:
            kinds[VerdictKind.INFRASTRUCTURE_FAILURE] += 1
        elif episode.verdict is not None:
            kinds[episode.verdict] += 1
            rules.update(episode.rules)
    ordered = {str(kind): kinds[kind] for kind in VerdictKind if kinds[kind]}
    return VerdictCounts(ordered, dict(sorted(rules.items(), key=lambda item: (-item[1], item[0]))))


def unusual_verdicts(verdicts: Mapping[str, int], tripwires: Mapping[str, int]) -> str:
    """What is neither resolved, unresolved nor empty, in words; "" where there is nothing of it.

    >>> unusual_verdicts({"resolved": 4, "resolved_loosely": 1, "suspected": 2}, {"frames": 2})
    '1 resolved loosely, 2 suspected (frames 2)'
    """
    parts = []
    for kind in VerdictKind:
        if verdicts.get(kind) and kind not in _ORDINARY:
            rules = ", ".join(f"{rule} {count}" for rule, count in tripwires.items())
            told = f" ({rules})" if kind is VerdictKind.SUSPECTED and rules else ""
            parts.append(f"{verdicts[kind]} {kind.replace('_', ' ')}{told}")
    return ", ".join(parts)
