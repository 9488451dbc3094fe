"""Right fixes where plugins of pytest run the tests in ways of their own, in real environments with them."""

import os
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from turnwise.rewards import verify
from turnwise.tasks.checkout.bench import uv_environment, uv_executable
from turnwise.types import Mount, TestRun, VerdictKind


@dataclass(frozen=True)
class Plugin:
    """What is installed beside pytest, the head of the tests' file, `test_add` and pytest's settings."""

    packages: tuple[str, ...]
    head: str
    test: str
    settings: str = ""


SECOND_TIME = """\
TRIES = []
@pytest.mark.flaky({})
def test_add():
    TRIES.append(1)
    assert len(TRIES) == 2
    assert calc.add(2, 3) == 5
"""
PLUGINS = {
    "flaky": Plugin(("flaky",), "import pytest", SECOND_TIME.format("max_runs=3")),
    "rerunfailures": Plugin(("pytest-rerunfailures",), "import pytest", SECOND_TIME.format("reruns=3")),
    "trio": Plugin(("pytest-trio",), "", "async def test_add(): assert calc.add(2, 3) == 5\n", "trio_mode=true"),
    "doctestplus": Plugin(
        ("pytest-doctestplus",), "", "def test_add(): assert calc.add(2, 3) == 5\n", "doctest_plus=enabled"
    ),
    "json-report": Plugin(
        ("pytest-json-report",), "", "def test_add(): assert calc.add(2, 3) == 5\n", "addopts=--json-report"
    ),
    "subtests": Plugin(
        ("pytest<9", "pytest-subtests"),
        "",
        "def test_add(subtests):\n    with subtests.test(): assert calc.add(2, 3) == 5\n",
    ),
}
OTHERS = """\
def test_sum():
    assert calc.add(1, 1) == 2
def test_double():
    assert calc.double(4) == 8
"""


@pytest.fixture(params=PLUGINS)
def world(request, small_world, tmp_path):
    """The small world with an environment that has the plugin, and a task with a test for it."""
    plugin, environment = PLUGINS[request.param], tmp_path / "env"
    for command in (["venv", "--python", sys.executable, environment], ["pip", "install", "--python", environment]):
        packages = ["pytest", *plugin.packages] if command[0] == "pip" else []
        subprocess.run([uv_executable(), *command, "-q", *packages], check=True, env={**os.environ, **uv_environment()})
    files = {"tests/test_calc.py": f"import calc\n{plugin.head}\n{plugin.test}{OTHERS}"}
    task = replace(
        small_world.task,
        test_patch=small_world.diff(files),
        test_run=TestRun(f"pytest -rA -o '{plugin.settings or 'addopts='}' tests/test_calc.py", "parse_log_pytest"),
        fail_to_pass=("tests/test_calc.py::test_add", "tests/test_calc.py::test_sum"),
    )
    spec = replace(small_world.spec, mounts=(Mount(Path(environment), "/opt/env"),))
    return replace(small_world, task=task, spec=spec)


async def test_a_plugins_way_with_tests_is_no_tampering(world, backend):
    fixed = world.task.patch + world.diff({"notes.txt": "not the task's own fix, which has no control\n"})
    kinds = [VerdictKind.RESOLVED, VerdictKind.UNRESOLVED]
    for patch, kind in zip((fixed, world.diff({"notes.txt": "nothing\n"})), kinds, strict=True):
        verdict = await verify(world.task, patch, backend=backend, spec=world.spec, timeout_s=60)
        assert verdict.kind is kind, f"{verdict.reason}\n{verdict.log}"


@pytest.mark.parametrize("world", ["trio"], indirect=True)
async def test_an_environment_that_shares_the_packages_is_built_meanwhile(world, backend, tmp_path):
    """Packages are linked from one cache, and each link dates the file anew."""
    (environment,) = (mount.host for mount in world.spec.mounts)
    files, done = list(environment.glob("lib/*/site-packages/*trio*/**/*.py")), threading.Event()

    def link() -> None:
        while not done.is_set():
            for file in files:
                (tmp_path / "link").hardlink_to(file)
                (tmp_path / "link").unlink()

    linking = threading.Thread(target=link)
    linking.start()
    try:
        verdict = await verify(world.task, world.task.patch, backend=backend, spec=world.spec, timeout_s=60)
    finally:
        done.set()
        linking.join()
    assert verdict.resolved, verdict.reason
