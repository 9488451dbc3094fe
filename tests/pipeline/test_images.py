"""A row with an image through the gate, in containers of that image: nothing is built, and no clone is needed."""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from turnwise.pipeline.recipe import SandboxTable
from turnwise.pipeline.validation import validate_tasks
from turnwise.types import Checkout, Task, TestRun

from ..sandbox.engine import add_folder, root_file_system

_IMAGE = "turnwise-tests-row:latest"


@pytest.fixture
def task(small_world, bare_python: Path, docker_host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    """The small world's task, whose image has a conda environment with pytest, as SWE-bench's images do."""
    import docker

    if docker_host:
        monkeypatch.setenv("DOCKER_HOST", docker_host)
    buffer = io.BytesIO(root_file_system())
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        for name in ("opt", "opt/miniconda3", "opt/miniconda3/envs"):
            add_folder(archive, name, 0o755)
        archive.add(bare_python, "opt/miniconda3/envs/testbed")
        archive.add(small_world.spec.tree, "testbed")
    client = docker.from_env()
    name, _, tag = _IMAGE.partition(":")
    client.api.import_image_from_data(buffer.getvalue(), repository=name, tag=tag, changes=["ENV PATH=/usr/bin:/bin"])
    yield replace(
        small_world.task,
        environment=Checkout(image=_IMAGE),
        test_run=TestRun("python -m pytest -rA tests/test_calc.py", "parse_log_pytest"),
    )
    client.images.remove(_IMAGE, force=True)
    client.close()


def test_a_row_is_judged_in_its_image(task: Task, tmp_path: Path) -> None:
    gone = replace(task, instance_id="small__calc-2", environment=Checkout(image="localhost:9/no/such:image"))
    verdicts = validate_tasks(
        [task, gone],
        tmp_path / "verdicts.jsonl",
        sandbox=SandboxTable(backend="docker", memory_mb=512, retries=0),
        repeats=1,
        workers=2,
        tell=lambda verdict: None,
    )
    assert verdicts[0].admitted, verdicts[0]
    assert not verdicts[1].admitted
    assert "cannot pull image localhost:9/no/such:image" in (verdicts[1].reason or "")
