"""What a benchmark does when something is missing or fails: it says so, goes on with the rest, and leaves nothing."""

import importlib.util
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from turnwise.types import Checkout

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """A benchmark's module by name, as `import` makes it."""

    def named(name):
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look for their module
        spec.loader.exec_module(module)
        return module

    return named


def test_a_soak_does_not_say_that_nothing_is_left_where_docker_fails(load, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    with pytest.raises(SystemExit, match="docker ps failed: "):
        load("soak")._containers("--all")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemExit, match="docker is not installed"):
        load("soak")._containers("--all")


def test_a_row_without_a_clone_is_told_and_the_next_one_tried(load, small_world, tmp_path):
    environments, shown = load("environments"), io.StringIO()
    task = replace(small_world.task, environment=Checkout())
    benchmark = environments.Benchmark(tmp_path, tmp_path, Console(file=shown, width=200))
    assert list(environments.measured(benchmark, [task, replace(task, instance_id="small__calc-2")])) == []
    for name in ("small__calc-1", "small__calc-2"):
        assert f"{name}: not counted: {tmp_path} has no clone small__calc" in shown.getvalue()


def test_a_step_by_hand_that_takes_too_long_is_one_that_failed(load, small_world, tmp_path):
    environments = load("environments")
    by_hand = environments.ByHand(small_world.task, small_world.spec.root, tmp_path, tmp_path, step_s=0.2)
    with pytest.raises(environments.ByHandError, match=r"sleep 60: takes more than 0\.2 s"):
        by_hand._do("sleep", "60", at=tmp_path)


def test_the_image_that_is_raced_against_goes_in_the_end(load, docker_host, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    with load("sandbox").docker_image() as image:
        subprocess.run(["docker", "image", "inspect", image], check=True, capture_output=True)
    assert subprocess.run(["docker", "image", "inspect", image], check=False, capture_output=True).returncode
