"""A whole recipe on a real small model, real sandboxes and real tests: what it leaves, and going on with it."""

import io
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from rich.console import Console
from transformers import AutoModelForCausalLM

from turnwise.config import claim_run_folder, load_recipe
from turnwise.errors import CheckpointError, LogprobMismatch, RecipeError
from turnwise.pipeline.run import is_finished, run_recipe
from turnwise.store import Journal

# On a machine that others use too, whole runs take their time.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SHORT = [
    "stages.rl-1.iterations=2",
    "evaluation.points=['rl-2']",
    "evaluation.every=1",
    "evaluation.runs=1",
    "evaluation.k=1",
]


@pytest.fixture
def start(small_world, mini):
    """Run (or go on with) the mini recipe in a folder; returns what was shown."""

    def start(run_dir: Path, *overrides: str, stop_after: int = 99) -> str:
        recipe = load_recipe(mini / "mini.toml", overrides)
        claim_run_folder(recipe, run_dir)
        shown = io.StringIO()
        stages = Counter()

        def after_stage(folder: Path) -> None:
            stages[folder] += 1
            if stages[folder] == stop_after:
                raise KeyboardInterrupt

        run_recipe(recipe, run_dir, console=Console(file=shown), after_stage=after_stage, environments=small_world)
        return shown.getvalue()

    return start


@pytest.fixture(scope="module")
def whole(mini, small_world, tmp_path_factory) -> Path:
    """A finished run of the mini recipe."""
    run_dir = tmp_path_factory.mktemp("whole")
    recipe = load_recipe(mini / "mini.toml")
    claim_run_folder(recipe, run_dir)
    console = Console(file=io.StringIO())
    run_recipe(recipe, run_dir, console=console, after_stage=lambda folder: None, environments=small_world)
    return run_dir


def test_every_episode_that_the_recipe_asks_for_is_played_and_paid(whole):
    with Journal.read(whole / "journal.sqlite") as journal:
        ended = journal.episodes()
    counts = Counter((each.key.stage, each.key.purpose, each.key.iteration) for each in ended)
    assert counts == {
        ("base", "evaluate", 0): 4,
        ("rft", "collect", 1): 6,
        ("rft", "evaluate", 1): 4,
        ("rl-1", "train", 1): 8,
        ("rl-1", "train", 2): 8,
        ("rl-1", "evaluate", 2): 2,
        ("rl-1", "train", 3): 8,
        ("rl-1", "evaluate", 3): 4,
        ("rl-2", "train", 1): 8,
        ("rl-2", "evaluate", 1): 4,
    }
    assert any(each.resolved for each in ended)
    assert not all(each.resolved for each in ended)
    assert all(each.rewards["resolved"] == each.resolved for each in ended)
    assert {each.key.stage for each in ended if "length" in each.rewards} == {"rl-1"}


def test_each_iteration_is_sampled_by_the_weights_that_the_one_before_made(whole):
    with Journal.read(whole / "journal.sqlite") as journal:
        versions = defaultdict(set)
        for key in list(journal.keys()):
            turns = [stored.turn for stored in journal.episode(key).turns]
            versions[key.stage, key.purpose, key.iteration] |= {turn.policy_version for turn in turns}
    assert versions == {
        ("base", "evaluate", 0): {0},
        ("rft", "collect", 1): {0},
        ("rft", "evaluate", 1): {1},
        ("rl-1", "train", 1): {1},
        ("rl-1", "train", 2): {2},
        ("rl-1", "evaluate", 2): {3},
        ("rl-1", "train", 3): {3},
        ("rl-1", "evaluate", 3): {4},
        ("rl-2", "train", 1): {4},
        ("rl-2", "evaluate", 1): {5},
    }


def test_checkpoints_load_and_the_journal_has_their_steps(whole):
    kept = sorted(str(path.relative_to(whole / "checkpoints")) for path in (whole / "checkpoints").glob("*/*"))
    assert kept == ["rft/0001", "rl-1/0002", "rl-1/0003", "rl-2/0001"]
    AutoModelForCausalLM.from_pretrained(whole / "checkpoints" / "rl-2" / "0001")
    with Journal.read(whole / "journal.sqlite") as journal:
        steps = journal.updates()
    assert {(step.stage, step.iteration) for step in steps} >= {("rft", 1), ("rl-1", 1)}
    assert steps[0].metrics["mismatch_mean_abs"] < 1e-5


def test_a_finished_run_has_nothing_left_to_do(whole, start):
    assert is_finished(whole)
    before = _rows(whole)
    start(whole)
    assert _rows(whole) == before


def _rows(run_dir: Path) -> list[object]:
    with Journal.read(run_dir / "journal.sqlite") as journal:
        return [journal.episodes(), journal.updates(), journal.evaluations()]


def test_another_recipe_is_refused_in_the_same_folder_and_the_keys_are_named(whole, start):
    with pytest.raises(RecipeError, match=r"stages\.rl-1\.lr: 0\.0001 → 0\.5"):
        start(whole, "stages.rl-1.lr=0.5")


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_another_architecture_runs_by_one_key_even_when_it_resolves_nothing(
    architecture, make_model, start, tmp_path, mini
):
    checkpoint = make_model(architecture, tmp_path / architecture)
    shown = start(tmp_path / "run", f"model.checkpoint={checkpoint}", *SHORT)
    assert "none of 6 episodes is resolved" in shown
    assert "rl-2: the refresh leaves no problem" in shown
    assert "rl-2 held-out: Pass@1 0.0" in shown
    assert is_finished(tmp_path / "run")


def test_a_stop_between_stages_goes_on_with_the_right_weights(whole, start, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, stop_after=3)
    assert not is_finished(tmp_path)
    start(tmp_path)
    assert _tokens(tmp_path) == _tokens(whole)


def _tokens(run_dir: Path) -> dict[str, list[int]]:
    with Journal.read(run_dir / "journal.sqlite") as journal:
        return {str(key): journal.episode(key).trajectory().token_ids_T.tolist() for key in list(journal.keys())}


def test_a_mismatch_stops_the_run_before_anything_is_learnt(start, tmp_path):
    with pytest.raises(LogprobMismatch, match="max_mismatch"):
        start(tmp_path, "trainer.max_mismatch=1e-12", *SHORT)
    assert not (tmp_path / "checkpoints").exists()


def test_a_context_beyond_the_model_is_refused(start, tmp_path):
    with pytest.raises(CheckpointError, match="512 positions"):
        start(tmp_path, "agent.context_tokens=1024")


def test_a_checkpoint_that_is_not_there_is_named(start, tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        start(tmp_path, "model.checkpoint=./nowhere")


def test_a_checkpoint_without_a_chat_template_is_named_with_the_reason(start, make_model, tmp_path):
    bare = make_model("llama", tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match=r"bare: .*no chat template"):
        start(tmp_path / "run", f"model.checkpoint={bare}")
