"""Tasks: rows on disk, how their sandboxes are built, and how they are made from real packages."""

from pathlib import Path

from turnwise.tasks.baseline import TEST_FOLDERS, SuiteRunner
from turnwise.tasks.building import build_all
from turnwise.tasks.checkout import Built
from turnwise.tasks.environment import EnvironmentStore
from turnwise.tasks.gate import check_task
from turnwise.tasks.make import make_tasks
from turnwise.tasks.mutate import Mutant, enumerate_mutants
from turnwise.tasks.options import MakeOptions
from turnwise.tasks.rows import read_tasks, scan_tasks, write_tasks
from turnwise.tasks.select import select
from turnwise.tasks.split import assign_splits

__all__ = [
    "TEST_FOLDERS",
    "Built",
    "EnvironmentStore",
    "MakeOptions",
    "Mutant",
    "SuiteRunner",
    "assign_splits",
    "build_all",
    "check_task",
    "enumerate_mutants",
    "frozen_path",
    "make_tasks",
    "read_tasks",
    "scan_tasks",
    "select",
    "write_tasks",
]


def frozen_path() -> Path:
    """The frozen set of tasks that ships with Turnwise."""
    return Path(__file__).parent / "data" / "frozen.jsonl"
