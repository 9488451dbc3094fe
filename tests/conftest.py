"""A small world for tests of more than one room: a package in a git repository, with a bug and hidden tests."""

import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest

from turnwise.sandbox import LocalBackend
from turnwise.types import Mount, SandboxSpec, SourceDistribution, Task

from .sandbox.cluster import Cluster, kubeconfig, serve
from .sandbox.engine import engine, left_over, reason_for_none

BUGGY = "def add(a, b):\n    return a - b\n\n\ndef double(a):\n    return a * 2\n"
FIXED = BUGGY.replace("a - b", "a + b")
KEPT_TEST = "\n\ndef test_double():\n    assert calc.double(4) == 8\n"
HIDDEN_TEST = "\n\ndef test_add():\n    assert calc.add(2, 3) == 5\n"
NEEDED_BY_PYTEST = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts its background jobs deaf to Ctrl-C, and what the tests start, and interrupt, would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a container engine or a cluster, by the fixtures and the backend that they ask for."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
        asked = {*getattr(item, "fixturenames", ()), *(each for each in parameters if isinstance(each, str))}
        if asked & {"docker_host", "cluster", "docker", "kubernetes"}:
            item.add_marker(pytest.mark.containers)


@dataclass(frozen=True)
class SmallWorld:
    """`task`'s repository lies at `spec.root`; `diff(files)` is the patch that gives files (by path) other contents,
    or removes them (None)."""

    task: Task
    spec: SandboxSpec
    diff: Callable[[Mapping[str, str | None]], str]

    async def prepare(self, task: Task) -> SandboxSpec:
        return self.spec

    def stop(self) -> None:
        pass


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with pytest in it and nothing more, made without the network."""
    folder = tmp_path_factory.mktemp("python") / "env"
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    site_packages = next(folder.glob("lib/python*/site-packages"))
    for name in NEEDED_BY_PYTEST:
        for file in distribution(name).files or []:
            if ".." not in file.parts:
                target = site_packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), target)
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(site_packages)], check=True)
    return folder


@pytest.fixture(scope="session")
def small_world(bare_python: Path, tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    root = tmp_path_factory.mktemp("small") / "repository"
    base = {"calc.py": BUGGY, "tests/test_calc.py": f"import calc{KEPT_TEST}"}
    (root / "tests").mkdir(parents=True)
    git(root, "init", "-q")
    for name, text in base.items():
        (root / name).write_text(text)
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "base")
    commit = git(root, "rev-parse", "HEAD").strip()

    def diff(files: Mapping[str, str | None]) -> str:
        return changes(root, files, tmp_path_factory.mktemp("diff"))

    task = Task(
        instance_id="small__calc-1",
        repo="small/calc",
        base_commit=commit,
        patch=diff({"calc.py": FIXED}),
        test_patch=diff({"tests/test_calc.py": f"import calc{HIDDEN_TEST}{KEPT_TEST}"}),
        problem_statement="add(2, 3) gives -1 and not 5.",
        fail_to_pass=("tests/test_calc.py::test_add",),
        pass_to_pass=("tests/test_calc.py::test_double",),
        environment=SourceDistribution("calc", "1.0", ""),
    )
    env = {
        "PATH": "/opt/env/bin:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": "/testbed",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    spec = SandboxSpec(root, mounts=(Mount(bare_python, "/opt/env"),), env=env)
    return SmallWorld(task, spec, diff)


@pytest.fixture(scope="session")
def docker_host() -> Iterator[str]:
    """The address of a Docker engine that has `IMAGE`; here, and nowhere else, is decided whether there can be."""
    if reason := reason_for_none():
        pytest.skip(reason)
    with engine() as host:
        yield host
        assert left_over(host) == []


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with serve() as cluster:
        yield cluster
        assert cluster.pods == {}


@pytest.fixture
def cluster_config(cluster: Cluster, tmp_path: Path) -> str:
    """The path of a kubeconfig file for `cluster`."""
    path = tmp_path / "kubeconfig"
    path.write_text(kubeconfig(cluster.url))
    return str(path)


@pytest.fixture
async def backend() -> AsyncIterator[LocalBackend]:
    backend = LocalBackend()
    yield backend
    await backend.close()


def changes(root: Path, files: Mapping[str, str | None], scratch: Path) -> str:
    copy = scratch / "copy"
    shutil.copytree(root, copy)
    for name, text in files.items():
        if text is None:
            (copy / name).unlink(missing_ok=True)
        else:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_text(text)
    git(copy, "add", "-A", "--force")
    return git(copy, "diff", "--cached", "--no-renames", "--full-index")


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout
