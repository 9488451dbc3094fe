"""An endpoint scored in the scaffold: a real HTTP server, real sandboxes and tests, and the files that come of it."""

import io
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from turnwise.config import claim_run_folder, evaluation_recipe, load_recipe
from turnwise.errors import InputError
from turnwise.evaluation import read_score, write_outputs
from turnwise.pipeline.run import is_finished, run_recipe
from turnwise.report.read import read_run
from turnwise.report.write import summary
from turnwise.store import EpisodeKey, Journal
from turnwise.tasks import write_tasks
from turnwise.types import StopReason
from turnwise.usage import Usage

from ..endpoint import Answer, completion, error, serving

pytestmark = pytest.mark.slow

FIX, SUBMIT = "The sign.\n```command\nsed -i 's/a - b/a + b/' calc.py\n```", "Done.\n```command\nsubmit\n```"
PRICES = {"prompt": 2.0, "cached": 0.5, "completion": 8.0}


def solve(request):
    """Fixes the bug, then submits; every prompt but the first is half cached."""
    if request.replies == 0:
        return completion(FIX, prompt=100, sampled=20)
    return completion(SUBMIT, prompt=200, cached=100, sampled=10)


class Evaluation:
    """One evaluation of two copies of the small task, in a folder of its own."""

    def __init__(self, world, folder: Path) -> None:
        self._world = world
        self.run_dir = folder / "run"
        self.tasks = folder / "tasks.jsonl"
        environment = replace(world.task.environment, sha256="0" * 64)
        copies = [replace(world.task, instance_id=f"small__calc-{n}", environment=environment) for n in (1, 2)]
        write_tasks(self.tasks, copies)

    def recipe(self, server, *overrides, runs=1, **chat):
        fast = ["agent.system_prompt=compact", f"tasks.path={self.tasks}"]
        return evaluation_recipe(
            None,
            name="eval-model",
            model="org/model",
            evaluation={"runs": runs, "k": runs},
            overrides=[*fast, *overrides],
            chat={"base_url": server.url, **chat},
        )

    def run(self, server, *overrides, **options):
        recipe = self.recipe(server, *overrides, **options)
        claim_run_folder(recipe, self.run_dir)
        shown = io.StringIO()
        run_recipe(
            recipe,
            self.run_dir,
            console=Console(file=shown, width=200),
            after_stage=lambda folder: None,
            environments=self._world,
        )
        return shown.getvalue()

    def outputs(self):
        with Journal.read(self.run_dir / "journal.sqlite") as journal:
            (written,) = write_outputs(journal, self.run_dir, model_name="org/model", run_id="eval-model")
        return json.loads(written.read_text())

    def episodes(self):
        with Journal.read(self.run_dir / "journal.sqlite") as journal:
            return journal.episodes()

    def failures(self):
        with Journal.read(self.run_dir / "journal.sqlite") as journal:
            return journal.failures_by_cause()


def command_line(*arguments):
    """What a command prints."""
    command = [sys.executable, "-m", "turnwise.cli", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "400", "NO_COLOR": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def evaluation(small_world, tmp_path):
    return Evaluation(small_world, tmp_path)


def test_several_runs_are_scored_counted_and_laid_out(evaluation):
    with serving(solve) as server:
        evaluation.run(server, runs=2, price=PRICES)
    episodes = evaluation.episodes()
    assert [each.resolved for each in episodes] == [True] * 4
    assert {each.usage for each in episodes} == {Usage(300, 100, 30)}
    score = read_score(str(evaluation.run_dir))
    assert (score.result.pass_at_1, score.result.sem, score.resolved, score.tokens) == (1.0, 0.0, 4, 30)
    cost = (4 * 200 * 2.0 + 4 * 100 * 0.5 + 4 * 30 * 8.0) / 1e6
    assert score.cost_usd == pytest.approx(cost)

    with Journal.read(evaluation.run_dir / "journal.sqlite") as journal:
        summaries = write_outputs(journal, evaluation.run_dir, model_name="org/model", run_id="eval-model")
    assert [str(path.relative_to(evaluation.run_dir)) for path in summaries] == [
        "runs/0/org__model.eval-model.json",
        "runs/1/org__model.eval-model.json",
    ]
    place = evaluation.run_dir / "runs" / "1"
    predictions = json.loads((place / "preds.json").read_text())
    assert predictions["small__calc-2"]["model_name_or_path"] == "org/model"
    assert "+    return a + b" in predictions["small__calc-2"]["model_patch"]
    stats = json.loads((place / "trajs" / "small__calc-1.traj").read_text())["info"]["model_stats"]
    assert stats == {
        "tokens_sent": 300,
        "tokens_received": 30,
        "instance_cost": pytest.approx(cost / 4),
        "api_calls": 2,
    }
    assert summary(read_run(evaluation.run_dir))["usage"] == {
        "prompt_tokens": 1200,
        "cached_tokens": 400,
        "completion_tokens": 120,
        "cost_usd": pytest.approx(cost),
        "uncounted_turns": 0,
    }


def test_a_total_without_the_count_of_some_turns_is_told_as_a_lower_bound(evaluation):
    """The endpoint counts the first reply of each of two episodes and not the second."""

    def script(request):
        return completion(SUBMIT, usage=None) if request.replies else solve(request)

    with serving(script) as server:
        evaluation.run(server, price=PRICES)
    assert [(each.usage, each.uncounted_turns) for each in evaluation.episodes()] == [(Usage(100, 0, 20), 1)] * 2
    usage = summary(read_run(evaluation.run_dir))["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["uncounted_turns"]) == (200, 40, 2)
    score = read_score(str(evaluation.run_dir))
    assert (score.usage, score.uncounted_turns) == (Usage(200, 0, 40), 2)
    evaluation.outputs()
    written = json.loads((evaluation.run_dir / "trajs" / "small__calc-1.traj").read_text())
    assert written["info"]["model_stats"]["uncounted_calls"] == 1
    assert command_line("compare", evaluation.run_dir, evaluation.run_dir).count("≥ $0.00") == 2
    shown = command_line("report", evaluation.run_dir)
    assert "tokens: at least 200 read (0% from cache), 40 sampled; cost: at least $0.0007" in shown
    assert "(the endpoint did not count 2 turns)" in shown


def test_the_dumped_recipe_is_the_same_recipe(evaluation):
    with serving(solve) as server:
        recipe = evaluation.recipe(server, "policy.chat.request.temperature=0.6", price=PRICES)
    claim_run_folder(recipe, evaluation.run_dir)
    kept = load_recipe(evaluation.run_dir / "recipe.toml")
    assert kept.policy == recipe.policy
    assert (kept.model, kept.model_name) == (recipe.model, "org/model")
    claim_run_folder(recipe, evaluation.run_dir)


def test_an_endpoint_that_refuses_the_key_stops_the_run_which_goes_on_once_it_does_not(evaluation, monkeypatch):
    """One task is done when the key runs out; it is not asked for again."""
    monkeypatch.setenv("A_KEY", "old")

    def once(request):
        return solve(request) if len(server.asked) <= 2 else error(401, "expired")

    with serving(once) as server:
        settings = ["policy.concurrency=1"]
        with pytest.raises(InputError, match="A_KEY"):
            evaluation.run(server, *settings, api_key_env="A_KEY")
        assert not is_finished(evaluation.run_dir)
        asked = len(server.asked)
        server.script = solve
        evaluation.run(server, *settings, api_key_env="A_KEY")
    assert len(server.asked) == asked + 2
    assert [each.resolved for each in evaluation.episodes()] == [True, True]


def test_a_key_that_is_not_set_is_named_before_anything_is_asked(evaluation, monkeypatch):
    monkeypatch.delenv("A_KEY", raising=False)
    with serving(solve) as server, pytest.raises(InputError, match="environment variable A_KEY is not set"):
        evaluation.run(server, api_key_env="A_KEY")
    assert server.asked == []


def test_a_context_that_the_endpoint_holds_too_long_is_the_policys_doing(evaluation):
    too_long = error(400, "This model's maximum context length is 100 tokens", code="context_length_exceeded")
    with serving(lambda request: solve(request) if request.replies == 0 else too_long) as server:
        evaluation.run(server)
    assert {each.stop_reason for each in evaluation.episodes()} == {StopReason.CONTEXT_LIMIT}
    assert evaluation.failures() == {}
    written = evaluation.outputs()
    assert written["empty_patch_ids"] == ["small__calc-1", "small__calc-2"]
    assert written["error_ids"] == []


def test_a_filter_in_the_middle_of_an_episode_ends_it_unresolved(evaluation):
    """The bug is fixed by then, but nothing was submitted: the tree's state is not graded."""
    filtered = completion("I", finish="content_filter")
    with serving(lambda request: solve(request) if request.replies == 0 else filtered) as server:
        evaluation.run(server)
    assert len(server.asked) == 4, "the refused reply is not asked for again"
    episodes = evaluation.episodes()
    assert {each.stop_reason for each in episodes} == {StopReason.CONTENT_FILTER}
    assert [(each.turns, each.resolved) for each in episodes] == [(1, False)] * 2
    assert evaluation.failures() == {}, "it is the policy's doing"
    with Journal.read(evaluation.run_dir / "journal.sqlite") as journal:
        trajectory = journal.episode(EpisodeKey("base", "evaluate", 0, "small__calc-1", 0)).trajectory()
    assert [turn.response for turn in trajectory.turns] == [FIX], "the filtered words are no turn"
    assert (trajectory.patch, trajectory.resolved, trajectory.reward) == ("", False, 0.0)
    assert trajectory.action_mask_T.any()
    written = evaluation.outputs()
    assert written["empty_patch_ids"] == ["small__calc-1", "small__calc-2"]
    assert written["error_ids"] == []
    traj = json.loads((evaluation.run_dir / "trajs" / "small__calc-1.traj").read_text())
    assert traj["info"]["exit_status"] == "exit_content_filter"
    score = read_score(str(evaluation.run_dir))
    assert (score.result.pass_at_1, score.attempts) == (0.0, 2)


def test_our_own_limit_counts_the_models_tokens_by_the_endpoints_word(evaluation):
    """The prompt is far shorter than 10,000 tokens, but the endpoint counts so many."""
    with serving(lambda request: completion(FIX, prompt=9_999, sampled=20)) as server:
        evaluation.run(server, "agent.context_tokens=10000")
    (first, second) = evaluation.episodes()
    assert first.stop_reason is second.stop_reason is StopReason.CONTEXT_LIMIT
    assert first.turns == 1


def test_what_the_endpoint_fails_for_good_is_an_error_and_the_rest_goes_on(evaluation):
    """The first episode's first reply never comes, and nothing is tried a third time."""
    seen = []

    def script(request):
        seen.append(request)
        return [Answer("<html>"), error(500, "once")][len(seen) - 1] if len(seen) <= 2 else solve(request)

    with serving(script) as server:
        evaluation.run(server, "sandbox.retries=0", "policy.concurrency=1", attempts=2)
    first, second = evaluation.episodes()
    assert (first.stop_reason, second.stop_reason) == (StopReason.POLICY_FAILURE, StopReason.SUBMITTED)
    assert evaluation.failures() == {"endpoint_garbage": 1, "endpoint_server_error": 1, "policy_failure": 1}
    written = evaluation.outputs()
    assert written["error_ids"] == written["infra_failure_ids"] == [first.key.task_id]
    assert written["failure_reasons"][first.key.task_id].startswith("policy_failure: ")
    assert "(endpoint_server_error, 2 attempts)" in written["failure_reasons"][first.key.task_id]
    assert written["resolved_ids"] == [second.key.task_id]
    assert written["unresolved_ids"] == []
    assert list(json.loads((evaluation.run_dir / "preds.json").read_text())) == [second.key.task_id]


def test_a_stopped_episode_goes_on_with_what_was_counted(evaluation):
    """The second response breaks the run off; the first one is neither asked for nor paid for again."""

    def script(request):
        return solve(request) if request.replies == 0 else error(401, "stop here")

    with serving(script) as server:
        with pytest.raises(InputError):
            evaluation.run(server, "policy.concurrency=1")
        firsts = sum(request.replies == 0 for request in server.asked)
        server.script = solve
        evaluation.run(server, "policy.concurrency=1")
        again = sum(request.replies == 0 for request in server.asked) - firsts
    assert firsts + again == 2
    with Journal.read(evaluation.run_dir / "journal.sqlite") as journal:
        turns = journal.episode(EpisodeKey("base", "evaluate", 0, "small__calc-1", 0)).trajectory().turns
    assert [turn.usage for turn in turns] == [Usage(100, 0, 20), Usage(200, 100, 10)]


def test_no_torch_is_loaded(evaluation, small_world, tmp_path):
    spec = tmp_path / "spec"
    spec.write_bytes(pickle.dumps(small_world.spec))
    with serving(solve) as server:
        claim_run_folder(evaluation.recipe(server), evaluation.run_dir)
        driver = Path(__file__).parent / "drive_chat.py"
        command = [sys.executable, str(driver), str(evaluation.run_dir), str(spec)]
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert (evaluation.run_dir / "preds.json").is_file()
