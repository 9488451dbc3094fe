"""A whole recipe on a real small model, real sandboxes and real tests: what it leaves, and going on with it."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from transformers import AutoModelForCausalLM

from turnwise.config import claim_run_folder, load_recipe
from turnwise.pipeline.run import run_recipe
from turnwise.store import Journal


@pytest.fixture
def start(small_world, mini):
    """Run (or go on with) the mini recipe in a folder; returns what was shown."""

    def start(run_dir: Path, *overrides: str) -> str:
        recipe = load_recipe(mini / "mini.toml", overrides)
        claim_run_folder(recipe, run_dir)
        shown = io.StringIO()
        run_recipe(
            recipe,
            run_dir,
            console=Console(file=shown),
            after_stage=lambda folder: print("after", file=shown),
            environments=small_world,
        )
        return shown.getvalue()

    return start


def test_a_whole_run(start, tmp_path):
    shown = start(tmp_path)
    print(shown)
    with Journal.read(tmp_path / "journal.sqlite") as journal:
        print(journal.evaluations(), journal.updates())
        assert 0
