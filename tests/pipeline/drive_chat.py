"""Scores an endpoint in a process of its own: drive_chat.py RUN SPEC; prints which heavy packages that loaded."""

import io
import pickle
import sys
from pathlib import Path

from rich.console import Console

from turnwise.config import load_recipe
from turnwise.evaluation import write_outputs
from turnwise.pipeline.run import run_recipe
from turnwise.rollout import FixedEnvironment
from turnwise.store import Journal

HEAVY = {"torch", "transformers", "matplotlib", "pyarrow", "datasets", "swebench"}


def main(run_dir: Path, spec: Path) -> None:
    environments = FixedEnvironment(pickle.loads(spec.read_bytes()))
    run_recipe(
        load_recipe(run_dir / "recipe.toml"),
        run_dir,
        console=Console(file=io.StringIO()),
        after_stage=lambda folder: None,
        environments=environments,
    )
    with Journal.read(run_dir / "journal.sqlite") as journal:
        write_outputs(journal, run_dir, model_name="m", run_id="r")
    print(sorted(HEAVY & set(sys.modules)))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
