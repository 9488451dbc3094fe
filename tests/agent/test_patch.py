"""What is taken out of an episode's sandbox is exactly the agent's work, whatever it did to git."""

import logging
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from turnwise.agent import base_of, take_patch
from turnwise.agent.tools import STATE_DIR
from turnwise.errors import SandboxError
from turnwise.sandbox import FakeBackend, LocalBackend, Sandbox
from turnwise.types import SandboxSpec

GIT = (
    "git",
    "-c",
    "user.name=a",
    "-c",
    "user.email=a@b",
    "-c",
    "commit.gpgsign=false",
    "-c",
    "core.hooksPath=/dev/null",
)
CHANGE = "sed -i 's/x2 = 2/x2 = 3/' a.py"


def git(root: Path, *arguments: str) -> str:
    return subprocess.run([*GIT, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of one commit."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.py").write_text("".join(f"x{number} = {number}\n" for number in range(1, 11)))
    (root / "latin.txt").write_bytes("é\nb\n".encode("latin-1"))
    (root / ".gitignore").write_text("*.log\n")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "base")
    return root


@pytest.fixture
async def sandbox(root: Path) -> AsyncIterator[Sandbox]:
    backend = LocalBackend()
    async with backend.create(SandboxSpec(root)) as sandbox:
        yield sandbox
    await backend.close()


async def taken(sandbox: Sandbox, root: Path, command: str) -> str:
    result = await sandbox.exec(command, 20)
    assert not result.timed_out
    return await take_patch(sandbox, git(root, "rev-parse", "HEAD"))


def apply(root: Path, patch: str) -> str:
    """Apply the patch to the base and name the paths that changed."""
    subprocess.run(["git", "apply", "-"], cwd=root, input=patch.encode(), check=True)
    return git(root, "status", "--porcelain", "-uall")


async def test_no_work_is_no_patch(sandbox, root):
    assert await taken(sandbox, root, "touch a.py; git status") == ""


@pytest.mark.parametrize(
    "meddling",
    [
        "true",
        "git add -A && git commit -qm done",
        "git checkout -qb other && git commit -qam done && git checkout -q --detach",
        "git rm -q --cached a.py",
        "git update-index --assume-unchanged a.py; git update-index --skip-worktree a.py",
        "rm .git/index && touch .git/index.lock",
        "cd / && export GIT_DIR=/nowhere GIT_INDEX_FILE=/nowhere",
        "git() { echo no; }; export -f git; alias git=false; PATH=/nowhere",
        "git config diff.noprefix true; git config diff.context 0; git config color.ui always",
        "git config diff.external /bin/true; git config core.worktree /tmp; git config core.bare true",
        "printf '#!/bin/sh\\nexit 1\\n' > .git/hooks/post-index-change; chmod +x .git/hooks/post-index-change",
        "git config core.sparseCheckout true; echo /none > .git/info/sparse-checkout",
        "mkdir -p __pycache__ && touch __pycache__/a.cpython-311.pyc b.pyc c.log",
    ],
)
async def test_the_change_is_taken_whatever_was_done_to_git(sandbox, root, meddling):
    patch = await taken(sandbox, root, f"{CHANGE}; {meddling}")
    assert "-x2 = 2\n+x2 = 3\n" in patch
    assert apply(root, patch) == "M a.py"


async def test_new_deleted_and_binary_files_come_along(sandbox, root):
    command = "mkdir -p 'n w' && echo 1 > 'n w/ü.py' && rm a.py && head -c 300 /dev/urandom > bin && ln -s bin link"
    patch = await taken(sandbox, root, command)
    apply(root, patch)
    assert (root / "n w" / "ü.py").read_text() == "1\n"
    assert not (root / "a.py").exists()
    assert len((root / "bin").read_bytes()) == 300
    assert (root / "link").readlink() == Path("bin")


async def test_a_file_that_is_not_utf8_survives(sandbox, root):
    patch = await taken(sandbox, root, f"sed -i 's/b/c/' latin.txt; {CHANGE}")
    apply(root, patch)
    assert (root / "latin.txt").read_bytes() == "é\nc\n".encode("latin-1")
    assert "x2 = 3" in (root / "a.py").read_text()


async def test_a_patch_longer_than_the_output_limit_is_whole(sandbox, root):
    patch = await taken(sandbox, root, "seq 1 50000 > n.txt")
    assert patch.endswith("+50000\n")


@pytest.mark.parametrize("breaking", ["rm -rf .git", "rm -rf .git/objects", "rm -rf .git; git init -q", "rm -rf * .g*"])
async def test_a_broken_repository_is_an_empty_patch_with_the_reason(sandbox, root, breaking, caplog):
    with caplog.at_level(logging.WARNING):
        assert await taken(sandbox, root, f"{CHANGE}; {breaking}") == ""
    assert "no patch can be taken" in caplog.text


@pytest.mark.parametrize("status", [-9, 137])
async def test_a_git_that_is_killed_once_is_asked_again_and_twice_is_the_machines_failure(root, status):
    statuses = iter([status, 0, status, status])
    backend = FakeBackend({"/usr/bin/env": lambda machine, arguments: ("", next(statuses))})
    async with backend.create(SandboxSpec(root)) as sandbox:
        await sandbox.write(f"{STATE_DIR}/patch", b"what git wrote")
        assert await take_patch(sandbox, "HEAD") == "what git wrote"
        with pytest.raises(SandboxError, match="killed twice"):
            await take_patch(sandbox, "HEAD")


async def test_a_base_that_is_a_name_stays_where_it_was(sandbox: Sandbox) -> None:
    base = await base_of(sandbox, "HEAD")
    await sandbox.exec(f"{CHANGE} && git -c user.name=a -c user.email=a@b commit -qam work", 20)
    assert "+x2 = 3" in await take_patch(sandbox, base)
    assert await base_of(sandbox, base) == base


async def test_a_branch_upstream_is_where_the_sandbox_starts(sandbox: Sandbox) -> None:
    assert await base_of(sandbox, "stable/4.x") == await base_of(sandbox, "HEAD")
    await sandbox.exec("rm .git/HEAD", 20)
    with pytest.raises(SandboxError, match="has no commit, where its base is stable"):
        await base_of(sandbox, "stable/4.x")
