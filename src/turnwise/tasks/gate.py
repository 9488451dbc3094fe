"""The task gate in its first form: the gold patch resolves a sound task, and a patch that does nothing does not."""

from collections.abc import Awaitable, Callable

from turnwise.types import Task, Verdict, VerdictKind

Verify = Callable[[Task, str], Awaitable[Verdict]]
# A verifier may settle an empty patch without running anything; this one has to be run.
_IDLE_PATCH = (
    "diff --git a/turnwise-idle.txt b/turnwise-idle.txt\nnew file mode 100644\n"
    "--- /dev/null\n+++ b/turnwise-idle.txt\n@@ -0,0 +1 @@\n+nothing\n"
)


async def check_task(task: Task, verify: Verify, repeats: int = 1) -> str:
    """Why the task is not sound, or an empty text; every verification is done `repeats` times and must agree.

    `verify` judges a patch in a fresh sandbox; what it raises is passed on.
    """
    for _ in range(repeats):
        gold = await verify(task, task.patch)
        if gold.kind is not VerdictKind.RESOLVED:
            return f"its gold patch ends {gold.kind}: {_wrong(gold)}"
        idle = await verify(task, _IDLE_PATCH)
        if idle.kind is not VerdictKind.UNRESOLVED:
            return f"a patch that does nothing ends {idle.kind}"
        broken = [test_id for test_id, outcome in idle.pass_to_pass.items() if outcome not in ("passed", "skipped")]
        passing = [test_id for test_id, outcome in idle.fail_to_pass.items() if outcome == "passed"]
        if broken or passing:
            return f"without the fix {(broken + passing)[0]} does not end as the row says"
    return ""


def _wrong(verdict: Verdict) -> str:
    outcomes = {**verdict.pass_to_pass, **verdict.fail_to_pass}
    return next((f"{i} {outcome}" for i, outcome in outcomes.items() if outcome != "passed"), verdict.log[-300:])
