"""A run in a process of its own, for tests that kill it: drive.py RECIPE RUN_DIR SPEC [KEY=VALUE…] (SPEC: a pickle)."""

import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from turnwise.config import claim_run_folder, load_recipe
from turnwise.pipeline.run import run_recipe
from turnwise.types import SandboxSpec, Task


@dataclass(frozen=True)
class Fixed:
    """Every task has the same sandbox."""

    spec: SandboxSpec

    async def prepare(self, task: Task) -> SandboxSpec:
        return self.spec


def main(recipe: str, run_dir: str, spec: str, *overrides: str) -> None:
    loaded = load_recipe(Path(recipe), overrides)
    claim_run_folder(loaded, Path(run_dir))
    environments = Fixed(pickle.loads(Path(spec).read_bytes()))
    run_recipe(loaded, Path(run_dir), console=Console(), after_stage=lambda folder: None, environments=environments)


if __name__ == "__main__":
    main(*sys.argv[1:])
