"""Runs in processes of their own, for tests that kill them: drive.py RECIPE SPEC (SPEC: a pickled SandboxSpec).

Reads one run folder a line, forks a process that runs the recipe there, and writes its pid, then its exit status. What
is slow to import is imported once, before the forks; no torch thread exists then.
"""

import os
import pickle
import sys
import traceback
from pathlib import Path

import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM

from turnwise import trainer
from turnwise.config import claim_run_folder, load_recipe
from turnwise.pipeline.run import run_recipe
from turnwise.policy import torch_policy
from turnwise.rollout import FixedEnvironment
from turnwise.types import SandboxSpec

WARM = (torch, AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM, trainer, torch_policy)


def run(recipe: Path, run_dir: Path, spec: SandboxSpec) -> None:
    loaded = load_recipe(recipe)
    claim_run_folder(loaded, run_dir)
    with Path(os.devnull).open("w") as nowhere:
        console = Console(file=nowhere)
        run_recipe(
            loaded, run_dir, console=console, after_stage=lambda folder: None, environments=FixedEnvironment(spec)
        )


def main(recipe: str, spec: str) -> None:
    unpickled = pickle.loads(Path(spec).read_bytes())
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                run(Path(recipe), Path(line.strip()), unpickled)
                status = 0
            except KeyboardInterrupt:
                status = 130
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(status)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
