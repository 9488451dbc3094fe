import random
from dataclasses import asdict

import numpy as np
import pytest

from turnwise.evaluation import Outcome, summarize
from turnwise.report import write_report
from turnwise.store import EpisodeKey, Journal, StoredTurn
from turnwise.types import FormatError, StopReason, Turn, Verdict, VerdictKind

TASKS = [f"toolz__toolz-{number}" for number in range(6)]
RUNS = 4
HOSTILE = "</pre><script>document.title = 'stolen'</script> & \N{SNOWMAN}"
SYSTEM = "You repair the repository. One command per answer."
ISSUE = "sliding_window returns one window too few"
FIND = 'Look for it.\n```command\ngrep -rn "def sliding_window" .\n```'
PATCH = (
    "diff --git a/toolz/it.py b/toolz/it.py\n--- a/toolz/it.py\n+++ b/toolz/it.py\n@@ -1 +1 @@\n-    n - 1\n+    n\n"
)


def write_episode(journal, key, *, resolved, stop_reason=StopReason.SUBMITTED, format_error=False, rewards=None):
    """One episode as rollout and verification leave it in the journal: 2 turns, 20 opening tokens."""
    journal.start_episode(key, list(range(20)), [("system", SYSTEM), ("user", ISSUE)])
    answers = [
        Turn(0, FIND, "grep", None, HOSTILE, 0, 20, 26, 3, 0.5, 0.01),
        Turn(1, "done", None, FormatError.NO_COMMAND, "", None, 30, 34, 3, 0.2, 0.0)
        if format_error
        else Turn(1, "```command\nsubmit\n```", "submit", None, "", 0, 30, 34, 3, 0.2, 0.0),
    ]
    journal.record_turn(key, stored(answers[0], observation_tokens=4))
    patch = f"{PATCH}# {key.member}\n" if resolved else ""
    journal.finish_episode(key, stop_reason, patch, stored(answers[1], observation_tokens=0))
    if stop_reason.is_infrastructure:
        return
    kind = VerdictKind.RESOLVED if resolved else VerdictKind.EMPTY_PATCH
    outcomes = ({"tests/test_it.py::test_window": "passed"}, {"tests/test_it.py::test_other": "passed"})
    journal.record_verdict(key.task_id, patch, Verdict(kind, *(outcomes if resolved else ({}, {})), "1 passed", 0.4))
    journal.record_rewards(key, {"resolved": float(resolved), "length": -0.25} if rewards is None else rewards)


def stored(turn, observation_tokens):
    count = turn.stop - turn.start
    ids = np.arange(count), np.full(count, -0.5, np.float32), np.arange(observation_tokens)
    return StoredTurn(turn, *ids)


def write_evaluation(journal, stage, iteration, chance, runs=RUNS):
    generator = random.Random(f"{stage}{iteration}")
    outcomes = []
    for run in range(runs):
        for task in TASKS:
            resolved = generator.random() < chance
            key = EpisodeKey(stage, "evaluate", iteration, task, run)
            write_episode(journal, key, resolved=resolved, format_error=not resolved)
            outcomes.append(Outcome(task, run, resolved, StopReason.SUBMITTED, 2, int(not resolved)))
    result = summarize(stage, outcomes, min(RUNS, runs))
    journal.record_evaluation(stage, iteration, asdict(result))
    return result


def write_iteration(journal, stage, purpose, iteration, chance, members):
    generator = random.Random(f"{stage}{iteration}")
    for task in TASKS[:3]:
        for member in range(members):
            key = EpisodeKey(stage, purpose, iteration, task, member)
            write_episode(journal, key, resolved=generator.random() < chance)
    metrics = {
        "entropy": 1.0 / (iteration + 1),
        "grad_norm": 0.8,
        "clip_fraction_high": None,
        "mismatch_mean_abs": 1e-6,
    }
    for step in range(2):
        journal.record_update(stage, iteration, step, metrics)


def write_suspected(journal):
    """Two suspected episodes; the patch of the later one could not carry all that the agent did."""
    for member, rules in enumerate((("frames",), ("frames", "interpreter"))):
        key = EpisodeKey("rl-1", "train", 1, TASKS[4], member)
        write_episode(journal, key, resolved=True, rewards={"resolved": 0.0, "length": -0.25})
        patch = f"import gc  # {member}\n"
        left_out = ["build/pipe: no regular file"] * member
        journal.finish_episode(key, StopReason.SUBMITTED, patch, left_out=left_out)
        verdict = Verdict(VerdictKind.SUSPECTED, reason="tripwire frames: toolz/it.py: sys._getframe", rules=rules)
        journal.record_verdict(key.task_id, patch, verdict)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A whole run in miniature with its report: the folder, and the result of each stage's evaluation in order."""
    run_dir = tmp_path_factory.mktemp("miniature")
    with Journal.open(run_dir / "journal.sqlite", recipe_hash="r") as journal:
        for name, value in {"name": "miniature", "seed": 7, "wall_s": 1503.2}.items():
            journal.set_state("run", name, value)
        results = [write_evaluation(journal, "base", 0, 0.1)]
        write_iteration(journal, "rft", "collect", 1, 0.2, members=3)
        results.append(write_evaluation(journal, "rft", 1, 0.3))
        for stage, iterations, chance in (("rl-1", 4, 0.5), ("rl-2", 2, 0.9)):
            for iteration in range(1, iterations + 1):
                write_iteration(journal, stage, "train", iteration, chance, members=RUNS)
                if iteration == 2 and stage == "rl-1":
                    write_evaluation(journal, stage, iteration, chance, runs=1)
            results.append(write_evaluation(journal, stage, iterations, chance))
        write_suspected(journal)
        lost = EpisodeKey("rl-2", "train", 2, TASKS[5], 0)
        write_episode(journal, lost, resolved=False, stop_reason=StopReason.SANDBOX_FAILURE)
        for dropped in (False, True):
            journal.record_failure("sandbox_failure", str(lost), "bwrap died", dropped)
    write_report(run_dir)
    return run_dir, results
