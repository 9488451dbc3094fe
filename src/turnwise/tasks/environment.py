"""What a task's sandbox is made of, rebuilt from its row: the package's environment and the broken repository."""

import asyncio
import hashlib
import json
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from turnwise.errors import SandboxError, TaskError, TurnwiseError
from turnwise.tasks.cache import default_cache_dir, made_once
from turnwise.tasks.checkout import Built, CheckoutStore
from turnwise.tasks.images import ImageSource, image_spec
from turnwise.tasks.python_environment import INSIDE, PythonEnvironment
from turnwise.tasks.repository import apply, commit_all, ignore, start_repository
from turnwise.tasks.sdist import fetch_sdist, unpack
from turnwise.types import Checkout, Mount, SandboxSpec, SourceDistribution, Task

T = TypeVar("T")
WORKDIR = "/testbed"
_LAYOUT = 1  # part of every key: a change of how things are built must not find things built before
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class EnvironmentStore:
    """Builds environments and repository roots under `cache_dir` once and hands out what sandboxes start from.

    `repos` is a folder of clones and mirrors, named <owner>__<name>, for the tasks of public repositories; what is not
    there is cloned. `known` are repositories by name, "owner/name", that lie elsewhere.

    >>> store = EnvironmentStore()  # doctest: +SKIP
    >>> (await store.prepare(task)).workdir  # doctest: +SKIP
    '/testbed'
    """

    def __init__(
        self,
        cache_dir: Path | None = None,
        repos: Path | None = None,
        images: ImageSource | None = None,
        known: Mapping[str, Path] | None = None,
    ) -> None:
        """`images`: how to come by the image that a row names; None builds environments without containers.

        `known`: repositories by name ("owner/name"), wherever they lie.
        """
        self.cache_dir = (cache_dir or default_cache_dir()).absolute()
        self._images = images
        self._checkouts = CheckoutStore(self.cache_dir, repos, known=known)
        self._prepared: dict[tuple[str, bool], SandboxSpec] = {}

    async def prepare(self, task: Task, hidden_tests: bool = False) -> SandboxSpec:
        """The sandbox of a task: its repository at the base commit, without the hidden tests unless asked for.

        Everything is cached by content; concurrent callers and processes wait for each other. Raises TaskError when the
        source distribution or the repository's commit is gone, the environment cannot be installed, or the row does not
        give its base commit. The hidden tests of a repository's task are never in its root: verification brings them.
        """
        if isinstance(task.environment, Checkout):
            return await (self._prepare_checkout(task) if self._image(task) is None else self._prepare_image(task))
        key = _digest(task.sdist.sha256, task.patch, task.test_patch, task.base_commit), hidden_tests
        if key not in self._prepared or not self._prepared[key].tree.exists():
            self._prepared[key] = await _of(task, self._prepare, task, *key)
        return self._prepared[key]

    def _image(self, task: Task) -> str | None:
        """The image that the task is to run in, if it has one and images are wanted."""
        image = task.environment.image if isinstance(task.environment, Checkout) else ""
        return image if self._images is not None and image else None

    async def _prepare_image(self, task: Task) -> SandboxSpec:
        assert self._images is not None
        return await _of(task, image_spec, task, self._images)

    async def _prepare_checkout(self, task: Task) -> SandboxSpec:
        key = await _of(task, self._checkouts.key, task), False
        if key not in self._prepared or not self._prepared[key].tree.exists():
            self._prepared[key] = await _of(task, self._checkouts.spec, task)
        return self._prepared[key]

    async def build(self, task: Task) -> Built:
        """Build a task's environment, or find it built; what was built, and in how long. Raises as `prepare` does."""
        started = time.monotonic()
        if image := self._image(task):
            await self.prepare(task)
            return Built(time.monotonic() - started, image, "", ())
        if isinstance(task.environment, Checkout):
            return await _of(task, self._checkouts.build, task)
        await self.prepare(task)
        return Built(time.monotonic() - started, sys.base_prefix, platform.python_version(), ())

    def stop(self) -> None:
        """End the building of repositories' environments, in whichever threads; it raises TaskError there."""
        self._checkouts.stop()

    def _prepare(self, task: Task, key: str, hidden_tests: bool) -> SandboxSpec:
        python = self.python_environment(task.sdist)
        name = f"{task.sdist.package}-{_digest(key, python.folder.name)[:20]}" + ("-hidden" * hidden_tests)
        root = made_once(
            self.cache_dir / "roots" / name, lambda folder: self._build_root(task, python, folder, hidden_tests)
        )
        return sandbox_spec(root, python, task.sdist.import_paths)

    def _build_root(self, task: Task, python: PythonEnvironment, folder: Path, hidden_tests: bool) -> None:
        copy_tree(self.source(task.sdist), folder)
        start_repository(folder)
        apply(folder, task.patch, reverse=True)
        apply(folder, task.test_patch, reverse=True)
        commit = commit_repository(folder, python)
        if commit != task.base_commit:
            raise TaskError(
                f"{task.instance_id}: its row gives commit {commit}, not its base_commit {task.base_commit}; "
                "patch, test_patch and environment do not belong together"
            )
        if hidden_tests:
            apply(folder, task.test_patch)

    def source(self, environment: SourceDistribution) -> Path:
        """The unpacked source distribution, clean: never shown to a sandbox."""
        pinned = f"{environment.package}=={environment.version}"

        def build(folder: Path) -> None:
            unpack(fetch_sdist(pinned, self.cache_dir / "sdists", environment.sha256).path, folder)

        return made_once(self.cache_dir / "sources" / environment.sha256, build)

    def python_environment(self, environment: SourceDistribution) -> PythonEnvironment:
        """The installed environment: the row's exact requirements and the package's metadata, without its modules."""

        def build(folder: Path) -> None:
            sdist = fetch_sdist(
                f"{environment.package}=={environment.version}", self.cache_dir / "sdists", environment.sha256
            )
            draft = PythonEnvironment(folder)
            draft.create()
            draft.install("--no-deps", *environment.requirements, str(sdist.path))
            draft.take_out_modules(environment.package, self.source(environment))

        return PythonEnvironment(made_once(self._environment_folder(environment), build))

    def adopt(self, environment: SourceDistribution, draft: Path) -> PythonEnvironment:
        """Take an environment that was just put together as the one that this row describes; `draft` is moved."""

        def build(folder: Path) -> None:
            folder.rmdir()
            draft.rename(folder)

        return PythonEnvironment(made_once(self._environment_folder(environment), build))

    def _environment_folder(self, environment: SourceDistribution) -> Path:
        what = json.dumps([environment.sha256, environment.requirements, sys.version_info[:2], sys.base_prefix])
        name = f"{environment.package}-{environment.version}-{_digest(what)[:16]}"
        return self.cache_dir / "environments" / name


async def _of(task: Task, make: Callable[..., T], *arguments: object) -> T:
    """What `make` returns, in a thread of its own. An error that nobody foresaw costs this task, not those beside it:
    raised as SandboxError where the system refused something, as TaskError else, with the task's name."""
    try:
        return await asyncio.to_thread(make, *arguments)
    except TurnwiseError:
        raise
    except OSError as error:
        raise SandboxError(f"{task.instance_id}: the machine failed its environment: {error}") from error
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        raise TaskError(f"{task.instance_id}: its environment cannot be made: {told}") from error


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join([str(_LAYOUT), *parts]).encode()).hexdigest()


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder's content into an existing folder."""
    shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True)


def commit_repository(root: Path, python: PythonEnvironment) -> str:
    """Add the files that the package's build makes, ignored by git, and commit the rest; the commit's id."""
    commit = commit_all(root)
    generated = [str(p.relative_to(python.generated)) for p in sorted(python.generated.rglob("*")) if p.is_file()]
    copy_tree(python.generated, root)
    ignore(root, generated)
    return commit


def sandbox_spec(root: Path, python: PythonEnvironment, import_paths: Sequence[str]) -> SandboxSpec:
    """A sandbox on this root with the package's Python first on PATH and its import paths on PYTHONPATH."""
    env: Mapping[str, str] = {
        "PATH": f"{INSIDE}/bin:{_SYSTEM_PATH}",
        "PYTHONPATH": ":".join(f"{WORKDIR}/{path}".rstrip("/") for path in import_paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
    }
    return SandboxSpec(root, WORKDIR, (Mount(python.venv, INSIDE),), env)
