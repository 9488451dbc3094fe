"""Tasks in the image of their row: an image with a past and a future, unpacked and run by the local backend."""

import io
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from turnwise.agent.patch import take_patch
from turnwise.errors import InputError, SandboxError, TaskError
from turnwise.pipeline.recipe import SandboxTable
from turnwise.pipeline.workshop import open_store
from turnwise.sandbox import LocalBackend, Sandbox
from turnwise.tasks.leaks import Search
from turnwise.types import Checkout, Limits, Task, TestRun

from ..sandbox.engine import add_folder, add_link, root_file_system

_GIT = ("git", "-c", "user.name=maker", "-c", "user.email=maker@example.org", "-c", "init.defaultBranch=master")
_PATCH = """\
diff --git a/calc.py b/calc.py
--- a/calc.py
+++ b/calc.py
@@ -1,2 +1,2 @@
 def add(a, b):
-    return a - b
+    return a + b + 0
"""


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run([*_GIT, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def _commit(root: Path, code: str, message: str) -> str:
    (root / "calc.py").write_text(code)
    _git(root, "add", "-A")
    _git(root, "commit", "-q", "-m", message)
    return _git(root, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A repository at its base commit, whose fix lies in a later commit, a branch, a tag and the reflog."""
    root = tmp_path_factory.mktemp("testbed")
    _git(root, "init", "-q")
    (root / "odd [name]").write_text("kept\n")
    _commit(root, "def add(a, b):\n    return 0\n", "before")
    base = _commit(root, "def add(a, b):\n    return a - b\n", "base")
    fixed = _commit(root, "def add(a, b):\n    return a + b + 0\n", "fix")
    _git(root, "branch", "later")
    _git(root, "tag", "v2")
    _git(root, "remote", "add", "origin", "https://example.org/calc")
    _git(root, "reset", "-q", "--hard", base)
    assert fixed in _git(root, "reflog", "--format=%H")
    (root / "made by [the] build").mkdir()
    (root / "made by [the] build" / "out").write_text("made\n")
    return root, base


def _image(repository: Path, file: Path) -> str:
    """An image as `docker export` writes one: a system, a conda environment and the repository."""
    buffer = io.BytesIO(root_file_system())
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        for name in ("opt", "opt/miniconda3", "opt/miniconda3/envs", "opt/miniconda3/envs/testbed"):
            add_folder(archive, name, 0o755)
        add_folder(archive, "opt/miniconda3/envs/testbed/bin", 0o755)
        add_link(archive, "opt/miniconda3/envs/testbed/bin/python", "/usr/bin/python3")
        archive.add(repository, "testbed")
    file.write_bytes(buffer.getvalue())
    return str(file)


@pytest.fixture(scope="module")
def image(repository: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    return _image(repository[0], tmp_path_factory.mktemp("image") / "image.tar")


@pytest.fixture
def changed_image(repository: tuple[Path, str], tmp_path: Path) -> str:
    """The same with a change that was never committed."""
    copy = tmp_path / "changed"
    shutil.copytree(repository[0], copy)
    (copy / "odd [name]").write_text("changed by whoever made the image\n")
    return _image(copy, tmp_path / "image.tar")


@pytest.fixture
def task(repository: tuple[Path, str], image: str) -> Task:
    return Task(
        instance_id="maker__calc-1",
        repo="maker/calc",
        base_commit=repository[1],
        patch=_PATCH,
        test_patch="",
        problem_statement="add subtracts",
        fail_to_pass=("test_calc.py::test_add",),
        pass_to_pass=(),
        environment=Checkout(image=image),
        test_run=TestRun("python -m pytest -rA test_calc.py", "parse_log_pytest"),
    )


@pytest.fixture
async def backend() -> AsyncIterator[LocalBackend]:
    backend = LocalBackend()
    yield backend
    await backend.close()


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path_factory.getbasetemp() / "images-cache"))


async def _entered(backend: LocalBackend, task: Task) -> Sandbox:
    store = open_store(SandboxTable(images=True), None)
    spec = replace(await store.prepare(task), limits=Limits(disk_mb=256))
    return await backend.create(spec).__aenter__()


async def _said(sandbox: Sandbox, command: str) -> str:
    done = await sandbox.exec(command, 30)
    assert done.exit_code == 0, done.output
    return done.output.strip()


async def test_an_images_repository_shows_its_base_commit_and_nothing_after_it(
    backend: LocalBackend, task: Task
) -> None:
    sandbox = await _entered(backend, task)
    assert await _said(sandbox, "git rev-parse HEAD") == task.base_commit
    assert await _said(sandbox, "git log --all --format=%s") == "base"
    assert await _said(sandbox, "git status --short; git remote; git tag; git stash list") == ""
    commits = "git cat-file --batch-all-objects --batch-check | grep -c commit"
    assert await _said(sandbox, commits) == "1"
    search = Search(task)
    assert search.told(await _said(sandbox, search.command)).leaks == ()
    assert await _said(sandbox, "command -v python") == "/opt/miniconda3/envs/testbed/bin/python"


async def test_work_in_an_image_is_taken_out_against_the_base(backend: LocalBackend, task: Task) -> None:
    sandbox = await _entered(backend, task)
    await sandbox.write("calc.py", b"def add(a, b):\n    return a + b\n")
    await _said(sandbox, "git commit -qam 'work of the agent' && echo x > new")
    patch = await take_patch(sandbox, task.base_commit)
    assert "+    return a + b\n" in patch
    assert "+++ b/new" in patch
    assert "made by" not in patch


async def test_what_a_setup_patch_and_the_image_changed_becomes_the_base(
    backend: LocalBackend, task: Task, changed_image: str
) -> None:
    bug = _PATCH.replace("+    return a + b + 0", "+    return b - a")
    changed = replace(task, environment=Checkout(image=changed_image, setup_patch=bug))
    sandbox = await _entered(backend, changed)
    assert await _said(sandbox, "cat calc.py") == "def add(a, b):\n    return b - a"
    assert await take_patch(sandbox, task.base_commit) == ""
    assert "a - b" not in await _said(sandbox, "git cat-file --batch-all-objects --batch < /dev/null | tr -d '\\0'")
    search = Search(changed)
    assert search.told(await _said(sandbox, search.command)).leaks == ()


async def test_an_image_without_the_commit_is_no_sandbox_and_says_so(backend: LocalBackend, task: Task) -> None:
    with pytest.raises(SandboxError, match="has no commit 0123456789"):
        await _entered(backend, replace(task, base_commit="0123456789" * 4))


async def test_what_is_no_image_costs_its_task_with_its_name(task: Task, tmp_path: Path) -> None:
    wrong = tmp_path / "image.tar"
    wrong.write_text("no archive")
    with pytest.raises(TaskError, match=r"maker__calc-1: .*image\.tar"):
        await open_store(SandboxTable(images=True), None).prepare(replace(task, environment=Checkout(image=str(wrong))))


async def test_an_engine_that_is_not_there_is_no_tasks_fault(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    monkeypatch.setenv("PATH", str(tmp_path))  # without skopeo
    nobodys = replace(task, environment=Checkout(image="example.org/nobody/has:it"))
    with pytest.raises(InputError, match="no Docker engine answers") as caught:
        await open_store(SandboxTable(images=True), None).prepare(nobodys)
    assert not isinstance(caught.value, TaskError)


async def test_without_images_a_repository_is_built(task: Task, tmp_path: Path) -> None:
    (tmp_path / "maker__calc").mkdir()
    with pytest.raises(TaskError, match="has no commit"):
        await open_store(SandboxTable(), tmp_path).prepare(task)
