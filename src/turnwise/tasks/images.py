"""Tasks in the image that their row names: what its repository must lose before an agent sees it, and its Python."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from turnwise.errors import ImageError, TaskError
from turnwise.types import Checkout, SandboxSpec, Task

ImageSource = Callable[[str], tuple[str, Mapping[str, str]]]
"""From a row's reference to what a backend starts, and the environment that it gives what runs there."""

_SETTLE = Path(__file__).parent / "data" / "settle_image.sh"
_CONDA = "/opt/miniconda3/envs/testbed/bin"


def image_spec(task: Task, source: ImageSource) -> SandboxSpec:
    """The sandbox of a task in its own image, whose repository shows the base commit and nothing after it.

    The image needs git. What must be done to it is done at the start of each sandbox (`SandboxSpec.setup`), because
    not every engine can keep what was done. Raises TaskError where the row's image is none, InputError where there is
    no engine to ask for it.
    """
    assert isinstance(task.environment, Checkout)
    try:
        image, env = source(task.environment.image)
    except ImageError as error:
        raise TaskError(f"{task.instance_id}: {error}") from error
    return SandboxSpec(
        None,
        workdir=task.environment.workdir,
        image=image,
        env={**env, **task.environment.installation.env},
        setup=(_path(task.environment.workdir), _without_history(task, task.environment)),
    )


def _path(workdir: str) -> str:
    """By rule: SWE-bench, SWE-Gym and SWE-smith have a conda environment, R2E-Gym one beside the code."""
    return f'export PATH={_CONDA}:{shlex.quote(workdir)}/.venv/bin:"$PATH"'


def _without_history(task: Task, environment: Checkout) -> str:
    given = {"workdir": environment.workdir, "given": task.base_commit, "patch": environment.setup_patch.strip("\n")}
    told = "\n".join(f"{name}={shlex.quote(value)}" for name, value in given.items())
    return f"(\n{told}\n{_SETTLE.read_text(encoding='utf-8')})"
