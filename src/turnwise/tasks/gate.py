"""The task gate (DESIGN.md): a task may train only if its gold patch resolves it, doing nothing does not, the tests are
steady and need no network, and the agent's sandbox shows nothing of the solution."""

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from turnwise.tasks.verdicts import Fault, GateVerdict
from turnwise.types import Task, Verdict, VerdictKind

# A verifier may settle an empty patch without running anything; this one has to be run.
IDLE_PATCH = (
    "diff --git a/turnwise-idle.txt b/turnwise-idle.txt\nnew file mode 100644\n"
    "--- /dev/null\n+++ b/turnwise-idle.txt\n@@ -0,0 +1 @@\n+nothing\n"
)
_RAN = (VerdictKind.RESOLVED, VerdictKind.UNRESOLVED)
_UNPAID = (VerdictKind.UNRESOLVED, VerdictKind.TESTS_TIMED_OUT)
_BROKEN_REFERENCE = re.compile(
    r"^(?:E\s+|(?:FAILED|ERROR) .* - )?(AttributeError|ImportError|ModuleNotFoundError)\b", re.MULTILINE
)
_NAMED = 3


class Trials(Protocol):
    """Tries things on one task, each in a fresh sandbox. What is nobody's fault is raised as InfrastructureError."""

    async def verify(self, patch: str, network: bool = False) -> Verdict:
        """The hidden tests' word on a patch; never INFRASTRUCTURE_FAILURE."""
        ...

    async def variants(self) -> int:
        """Make the variants of the hidden tests that patches are put to; how many of them the gold patch fails."""
        ...

    async def leaks(self) -> Sequence[str]:
        """What the agent's sandbox shows of the solution."""
        ...


async def check_task(task: Task, trials: Trials, repeats: int = 1) -> GateVerdict:
    """The gate's verdict on a task whose environment is there; `build_s` is left to the caller.

    The gold patch is run `repeats` times, and once more with network where that could be what it lacks. What `trials`
    raises is passed on.
    """
    leaks = await trials.leaks()
    golds = [await trials.verify(task.patch)]
    while len(golds) < repeats and golds[-1].kind in _RAN:
        golds.append(await trials.verify(task.patch))
    gold, flaky = all(verdict.resolved for verdict in golds), _disagreeing(golds)
    network = not gold and not flaky and golds[0].kind in _UNPAID and await _resolves_online(task, trials)
    idle = await trials.verify(IDLE_PATCH)
    faults = [
        *([(Fault.LEAK, f"the sandbox shows the solution: {_some(leaks)}")] if leaks else []),
        *([(Fault.FLAKY, f"the gold patch ends differently from run to run: {_some(flaky)}")] if flaky else []),
        *([(Fault.NETWORK, "the gold patch resolves only with network")] if network else []),
        *([] if gold or flaky or network else [(Fault.GOLD, f"the gold patch ends {_ending(golds)}")]),
        *([(Fault.EMPTY, f"without the fix the tests end {_ended(idle)}")] if idle.kind not in _UNPAID else []),
    ]
    variants = 0 if faults else await trials.variants()
    return GateVerdict(
        instance_id=task.instance_id,
        admitted=not faults,
        reason="; ".join([text for _, text in faults] or _remarks(idle, variants)) or None,
        fault=faults[0][0] if faults else None,
        gold=gold,
        empty=idle.kind in _UNPAID,
        flaky=tuple(flaky),
        network=network,
        leaks=tuple(leaks),
        variants=variants,
        test_s=round(max(verdict.duration_s for verdict in golds), 2),
    )


async def _resolves_online(task: Task, trials: Trials) -> bool:
    return (await trials.verify(task.patch, network=True)).resolved


def _disagreeing(runs: Sequence[Verdict]) -> list[str]:
    """The tests that did not end the same in all runs."""
    outcomes = [{**run.fail_to_pass, **run.pass_to_pass} for run in runs if run.kind in _RAN]
    ids = dict.fromkeys(test_id for each in outcomes for test_id in each)
    return [test_id for test_id in ids if len({each.get(test_id) for each in outcomes}) > 1]


def _ending(runs: Sequence[Verdict]) -> str:
    """How the first run that did not resolve ended."""
    return _ended(next(run for run in runs if not run.resolved))


def _ended(verdict: Verdict) -> str:
    return f"{verdict.kind}: {verdict.reason}" if verdict.reason else str(verdict.kind)


def _remarks(idle: Verdict, variants: int) -> Iterator[str]:
    """What is odd about how an admitted task's tests end without the fix; the paper's filters ask for some of it.

    Tests that do not end as the row says are common in public rows (test ids that several tests share, for one); they
    make a task no less sound, as long as all of them together are passed by the fix alone.
    """
    if idle.kind is not VerdictKind.UNRESOLVED:
        yield f"without the fix the tests end {_ended(idle)}"
    found = _BROKEN_REFERENCE.search(idle.log)
    if found:
        yield f"without the fix tests end with {found[1]}"
    passing = [test_id for test_id, outcome in idle.fail_to_pass.items() if outcome == "passed"]
    broken = [test_id for test_id, outcome in idle.pass_to_pass.items() if outcome not in ("passed", "skipped")]
    if not variants:
        yield "no mutation of the hidden tests makes the gold patch fail: nothing but tripwires stands against hacks"
    if passing:
        yield f"without the fix {_some(passing)} of FAIL_TO_PASS passes"
    if broken:
        yield f"without the fix {_some(broken)} of PASS_TO_PASS does not pass"


def _some(items: Sequence[str]) -> str:
    more = len(items) - _NAMED
    return ", ".join(items[:_NAMED]) + (f" and {more} more" if more > 0 else "")
