"""Built environments of checked-out repositories in the cache, and the sandboxes that start from them."""

import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from turnwise.errors import SandboxError, TaskError
from turnwise.tasks.cache import made_once
from turnwise.tasks.checkout import needs
from turnwise.tasks.checkout.bench import DISK_FULL, ENV, SYSTEM_PATH, WORKDIR, disk_full
from turnwise.tasks.checkout.build import Built, build, read_built, settings_commit
from turnwise.tasks.checkout.repositories import GITHUB, History, find_history
from turnwise.types import Checkout, Mount, SandboxSpec, Task

_LAYOUT = 4  # part of every key: a change of how things are built must not find things built before
_WHOLE_HASH = re.compile("[0-9a-f]{40}")
_PACKAGE_FOLDERS = (
    "lib*/python*/site-packages",
    "lib*/python*/dist-packages",
    "lib*/python*/ensurepip/_bundled",
    "pkgs",
    "envs",
)


class CheckoutStore:
    """Builds each environment once under `cache_dir`; `repos` is the user's folder of repositories, and `known` are
    others by name ("owner/name"), wherever they lie.

    >>> store = CheckoutStore(Path("~/.cache/turnwise").expanduser(), Path("mirrors"))  # doctest: +SKIP
    >>> store.build(task).build_s  # doctest: +SKIP
    7.5
    """

    def __init__(
        self, cache_dir: Path, repos: Path | None = None, host: str = GITHUB, known: Mapping[str, Path] | None = None
    ) -> None:
        self._cache_dir = cache_dir
        self._repos = repos
        self._host = host
        self._known = dict(known or {})
        self._stopped = threading.Event()
        self._commits: dict[tuple[str, str], str] = {}

    def key(self, task: Task) -> str:
        """What the environment depends on, as a digest; the row's tests count only by the programs that run them.

        Of a base commit that is named ("HEAD"), what it names: blocks while its repository is cloned. Raises TaskError.
        """
        task, environment = self._pinned(task), _checkout(task)
        command = task.test_run.command if task.test_run else "pytest"
        tools = [needs.python_of(command), *sorted(set(needs.tools(command)))]
        row = [task.repo, task.base_commit, task.created_at, task.version, asdict(environment), tools]
        if commit := settings_commit(task, environment.installation):
            row.append(commit)
        return hashlib.sha256(json.dumps([_LAYOUT, *row], sort_keys=True).encode()).hexdigest()

    def build(self, task: Task) -> Built:
        """Build the environment unless it is there. Raises TaskError, or SandboxError where the machine fails (a full
        disk, a package index that does not answer); blocks for as long as it takes."""
        return read_built(self._folder(task))

    def stop(self) -> None:
        """End what is being built, cloned or waited for: its threads get BuildingStopped within a second, where git is
        not just writing out files that it has. For good: nothing is built after it."""
        self._stopped.set()

    def spec(self, task: Task) -> SandboxSpec:
        """The sandbox of a task, built if need be. Raises TaskError."""
        folder = self._folder(task)
        built = read_built(folder)
        prefix = Path(built.prefix)
        if not prefix.is_dir():
            raise TaskError(f"{task.instance_id}: Python {built.python} is gone from {prefix}; delete {folder}")
        mounts = (Mount(folder / "venv", ENV), *self._python_mounts(prefix))
        return SandboxSpec(folder / "root", WORKDIR, mounts, _variables(_checkout(task)))

    def _folder(self, task: Task) -> Path:
        task, environment = self._pinned(task), _checkout(task)
        folder = self._cache_dir / "checkouts" / f"{task.repo.replace('/', '__')}-{self.key(task)[:20]}"

        def make(draft: Path) -> None:
            with _room(draft):
                build(task, environment, self._history(task), draft, self._cache_dir / "packages", self._stopped)

        return made_once(folder, make, self._stopped)

    def _history(self, task: Task) -> History:
        known = self._known.get(task.repo)
        return find_history(task, self._repos, self._cache_dir, self._host, known, self._stopped)

    def _pinned(self, task: Task) -> Task:
        """The task with the whole hash of its base commit.

        What a name stands for is looked up once, for a repository may move on while its tasks are in use.
        """
        if _WHOLE_HASH.fullmatch(task.base_commit):
            return task
        named = task.repo, task.base_commit
        if named not in self._commits:
            self._commits.setdefault(named, self._history(task).commit(task.base_commit))
        return replace(task, base_commit=self._commits[named])

    def _python_mounts(self, prefix: Path) -> Iterator[Mount]:
        """The Python, less the packages that are installed in it: one of them may be the task's own, mended.

        The system's Pythons and the running one are in every sandbox, masked there.
        """
        shown = {Path("/usr"), Path(sys.base_prefix), Path(sys.base_prefix).resolve()}
        if any(prefix.is_relative_to(path) for path in shown):
            return
        empty = self._cache_dir / "checkouts" / ".empty"
        empty.mkdir(exist_ok=True)
        for path in sorted({prefix, prefix.resolve()}):
            yield Mount(path, str(path))
            folders = sorted(folder for pattern in _PACKAGE_FOLDERS for folder in path.glob(pattern))
            yield from (Mount(empty, str(folder)) for folder in folders if folder.is_dir() and any(folder.iterdir()))


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """A full disk is the machine's failure (SandboxError), whichever step it is that meets it."""
    try:
        yield
    except (OSError, TaskError) as error:
        if DISK_FULL.search(str(error)):
            raise SandboxError(disk_full(folder)) from error
        raise


def _checkout(task: Task) -> Checkout:
    if not isinstance(task.environment, Checkout):
        raise TaskError(f"{task.instance_id}: its environment is not a repository's")
    return task.environment


def _variables(environment: Checkout) -> dict[str, str]:
    """Compiled files may be written: some suites test just that, and no patch ever takes them along."""
    own = {"PATH": f"{ENV}/bin:{SYSTEM_PATH}", "VIRTUAL_ENV": ENV, "LANG": "C.UTF-8", "TZ": "UTC"}
    return {**own, **environment.installation.env}
