"""Tasks from real packages into one file: the suites run in fresh local sandboxes."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from turnwise.errors import InputError, TaskError
from turnwise.rewards import FreshSuiteRunner
from turnwise.sandbox import LocalBackend
from turnwise.tasks import EnvironmentStore, MakeOptions, assign_splits, make_tasks, write_tasks
from turnwise.types import Task

OnTask = Callable[[Task], None]
OnPackage = Callable[[str, Sequence[Task] | TaskError], None]


def make_task_file(
    requirements: Sequence[str], out: Path, options: MakeOptions, on_task: OnTask, on_package: OnPackage
) -> list[Task]:
    """Make tasks of every package (`NAME` or `NAME==VERSION`) and write them to `out`, anew after each package.

    Which are held out is decided over all packages. A package that cannot be used is told to `on_package` with its
    error, and the others go on. Raises InputError when `out` exists already.
    """
    if out.exists():
        raise InputError(f"{out} exists already; remove it or name another file with --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    made: list[Task] = []

    def keep(requirement: str, tasks: Sequence[Task] | TaskError) -> None:
        if not isinstance(tasks, TaskError):
            made[:] = assign_splits([*made, *tasks], options.held_out, options.held_out_by, options.split_seed)
            write_tasks(out, made)
            tasks = made[-len(tasks) :]
        on_package(requirement, tasks)

    asyncio.run(_make_all(requirements, options, on_task, keep))
    return made


async def _make_all(requirements: Sequence[str], options: MakeOptions, on_task: OnTask, keep: OnPackage) -> None:
    backend, environments = LocalBackend(), EnvironmentStore()
    try:
        for requirement in requirements:
            try:
                tasks = await make_tasks(requirement, FreshSuiteRunner(backend), environments, options, on_task)
            except TaskError as error:
                keep(requirement, error)
            else:
                keep(requirement, tasks)
    finally:
        await backend.close()
