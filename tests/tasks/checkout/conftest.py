"""A small public project made on the spot: a past, a base commit with a bug, and a future that mends it."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from turnwise.tasks.checkout import CheckoutStore
from turnwise.types import Checkout, Installation, Task

RUNNING = f"{sys.version_info[0]}.{sys.version_info[1]}"
OFFLINE_INSTALL = "pip install --no-build-isolation --no-deps -e ."
SETUP = """\
import os
import pathlib
import subprocess
from setuptools import setup

told = os.environ.get("SETUPTOOLS_SCM_PRETEND_VERSION", "none")
tag = subprocess.run(["git", "describe", "--tags"], capture_output=True, text=True).stdout.strip()
pathlib.Path("src/tiny/_version.py").write_text(f"TOLD = {told!r}\\nTAG = {tag!r}\\n")
setup(name="tiny", version="1.0", package_dir={"": "src"}, packages=["tiny"], python_requires=">=3.7")
"""
BUGGY, MENDED = "def add(a, b):\n    return a - b\n", "def add(a, b):\n    return a + b  # mended\n"
TEST = "import tiny\n\n\ndef test_add():\n    assert tiny.add(2, 0) == 2\n"
FILES = {
    "setup.py": SETUP,
    "src/tiny/__init__.py": BUGGY,
    "tests/test_tiny.py": TEST,
    ".gitattributes": "secret.txt export-ignore\nsubst.txt export-subst\n*.txt text eol=crlf\n",
    "secret.txt": "part of the tree\n",
    "subst.txt": "$Format:%H$\n",
    "check.py": "import tiny\n",
    "tox.ini": "[testenv]\ncommands = pytest\n",
}
# Only the future has them.
NEEDS = {
    "needs/tests.txt": "-r more.txt\n",
    "needs/more.txt": "iniconfig==1.1.1\n",
    "needs/all.txt": "-r ../needs/more.txt\na-package-of-nobody\n",
    "needs/round.txt": "-r round.txt\n-r nobodys.txt\n-e .\n",
    "needs/nobodys.txt": "-r ../needs/all.txt\n",
}


def run_git(folder: Path, *arguments: str) -> str:
    who = {f"GIT_{role}_{key}": "upstream" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    day = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), "2023-05-01T12:00:00+0000")
    settings = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-c", "init.defaultBranch=main", "-c", "core.autocrlf=false", *arguments]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **who, **day, **settings}, check=True, capture_output=True
    )
    return done.stdout.decode(errors="replace").strip()


@dataclass(frozen=True)
class Upstream:
    """`repos`/acme__tiny with its work tree; `past`, `base` and `future` are commits."""

    repos: Path
    past: str
    base: str
    future: str

    @property
    def folder(self) -> Path:
        return self.repos / "acme__tiny"

    def task(self, setup_patch: str = "", **installation: object) -> Task:
        """A row of the project; without more it is installed without the network."""
        how = Installation(**{"python": RUNNING, "install": (OFFLINE_INSTALL,), **installation})
        return Task(
            instance_id="acme__tiny-7",
            repo="acme/tiny",
            base_commit=self.base,
            patch="",
            test_patch="",
            problem_statement="add(2, 3) gives -1.",
            fail_to_pass=("tests/test_tiny.py::test_add",),
            pass_to_pass=(),
            environment=Checkout(installation=how, setup_patch=setup_patch),
            created_at="2023-05-02T10:00:00Z",
        )


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    repos = tmp_path_factory.mktemp("repos")
    folder = repos / "acme__tiny"
    folder.mkdir()
    run_git(folder, "init", "-q")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "run.sh").write_text("echo\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("run.sh")
    commits = []
    for tag, files in (
        ("v1.0", {"news": "the past\n"}),
        ("", {"news": "the base\n"}),
        ("v1.1", {"src/tiny/__init__.py": MENDED, **NEEDS}),
    ):
        for name, text in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        run_git(folder, "-c", "core.attributesFile=/dev/null", "add", "-A", ".")
        run_git(folder, "commit", "-q", "-m", f"Write {', '.join(files)}")
        commits.append(run_git(folder, "rev-parse", "HEAD"))
        if tag:
            run_git(folder, "tag", tag)
    run_git(folder, "branch", "release")
    run_git(folder, "remote", "add", "origin", "https://user:password@example.org/acme/tiny")
    return Upstream(repos, *commits)


@pytest.fixture(scope="session")
def git() -> Callable[..., str]:
    """Run git in a folder, without anyone's settings; its output."""
    return run_git


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def store(cache: Path, upstream: Upstream) -> CheckoutStore:
    return CheckoutStore(cache, upstream.repos)
