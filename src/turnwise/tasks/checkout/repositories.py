"""Where the history of a task's repository lies: a folder of the user's, or a bare clone in the cache. Only read."""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path, PurePosixPath

from packaging.version import InvalidVersion, Version

from turnwise.errors import TaskError
from turnwise.tasks.cache import locked, made_once
from turnwise.tasks.checkout.watch import watch
from turnwise.types import Task

GITHUB = "https://github.com"
_CLONE_TIMEOUT_S = 1800.0
_READ_TIMEOUT_S = 600.0
_DESCRIBED = re.compile(r"^(?:.*?[^0-9.])??v?(?P<tag>\d+(?:[._]\d+)*\S*?)-(?P<distance>\d+)-g[0-9a-f]+$")


@dataclass(frozen=True)
class History:
    """A git repository that holds a task's base commit. Nothing is ever written to it.

    When `stopped` is set, what git is doing ends, with BuildingStopped.

    >>> History(Path("mirrors/psf__requests.git"), "psf__requests-2317").folder.name
    'psf__requests.git'
    """

    folder: Path
    instance_id: str
    stopped: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)

    def git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """What git says. Raises TaskError naming the task and the repository when it fails or hangs."""
        try:
            done = self._run(arguments, stdin)
        except subprocess.TimeoutExpired as error:
            raise TaskError(
                f"{self.instance_id}: git {arguments[0]} in {self.folder} took over {_READ_TIMEOUT_S:g} s"
            ) from error
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip()
            raise TaskError(f"{self.instance_id}: git {arguments[0]} failed in {self.folder}: {reason}")
        return done.stdout

    def commit(self, revision: str) -> str:
        """The whole hash of the commit that a revision (a hash, the start of one, a branch, "HEAD") names here.

        Empty where it names none.
        """
        named = self._run(("rev-parse", "-q", "--verify", "--end-of-options", f"{revision}^{{commit}}"))
        return named.stdout.decode().strip() if named.returncode == 0 else ""

    def pack(self, commit: str) -> tuple[bytes, frozenset[str]]:
        """A git pack of this one commit, its trees and its files, none of its parents; ids of files that are missing.

        Files are missing from partial clones, and from mirrors that leave out large ones. What is not packed well yet
        is packed fast: the pack is read once.
        """
        objects = self.git("rev-list", "--objects", "--no-walk", "--missing=print", commit).split(b"\n")
        missing = frozenset(line[1:].decode() for line in objects if line.startswith(b"?"))
        there = b"\n".join(line for line in objects if not line.startswith(b"?"))
        fast = ("--window=0", "--compression=1")
        return self.git("pack-objects", "-q", "--stdout", *fast, stdin=there), missing

    def export(self, commit: str, paths: Sequence[str], folder: Path) -> None:
        """Write the files at these paths as they are at a commit, and the text files beside them, which a requirements
        file may include, below `folder`. Paths that the commit lacks are passed over."""
        beside = {str(PurePosixPath(path).parent) for path in paths}
        listed = self.git("ls-tree", "-r", "-z", "--name-only", "--full-tree", commit)
        there = listed.decode("utf-8", "surrogateescape").split("\0")
        texts = [path for path in there if path.endswith(".txt") and str(PurePosixPath(path).parent) in beside]
        for path in {*texts, *(set(paths) & set(there))}:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(self.git("cat-file", "blob", f"{commit}:{path}"))

    def committed_on(self, commit: str) -> date:
        """The day (UTC) that the commit was made."""
        seconds = int(self.git("show", "-s", "--format=%ct", commit).split()[-1])
        return datetime.fromtimestamp(seconds, UTC).date()

    def version_at(self, commit: str) -> str:
        """The version that setuptools_scm would give the commit ("6.2.1.dev64"), "" where no tag tells one."""
        described = self._run(("describe", "--tags", "--long", "--match", "*[0-9].[0-9]*", commit))
        return version_of(described.stdout.decode(errors="replace").strip()) if described.returncode == 0 else ""

    def _run(self, arguments: Sequence[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return run_git(self.folder, arguments, _READ_TIMEOUT_S, stdin, self.stopped)


def version_of(described: str) -> str:
    """The development version that `git describe --long` stands for, as setuptools_scm's default scheme guesses it.

    >>> version_of("6.2.0-64-gabc1234"), version_of("v2.0.1-0-gabc1234"), version_of("8.1.0.dev0-5-gabc1234")
    ('6.2.1.dev64', '2.0.1', '8.1.0.dev5')
    """
    match = _DESCRIBED.match(described)
    try:
        tag = Version(match["tag"].replace("_", ".")) if match else None
    except InvalidVersion:
        return ""
    if match is None or tag is None:
        return ""
    if match["distance"] == "0":
        return tag.public
    release = list(tag.release)
    if not tag.is_prerelease:
        release[-1] += 1
    return f"{'.'.join(map(str, release))}.dev{match['distance']}"


def run_git(
    folder: Path,
    arguments: Sequence[str],
    timeout_s: float,
    stdin: bytes = b"",
    stopped: threading.Event | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """git in exactly this folder (not in one above it), without the user's settings and without questions.

    Raises subprocess.TimeoutExpired, and BuildingStopped when `stopped` is set.
    """
    environment = {
        "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
        "HOME": os.environ.get("HOME", "/nonexistent"),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_CEILING_DIRECTORIES": str(folder.absolute().parent),
        **{name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")},
    }
    command, pipe = ["git", "-c", "safe.directory=*", "-c", "gc.auto=0", *arguments], subprocess.PIPE
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    ) as process:
        try:
            output, complaint = watch(process, timeout_s, stopped or threading.Event(), stdin)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with those that git started
    return subprocess.CompletedProcess(command, process.returncode, output, complaint)


def find_history(
    task: Task,
    repos: Path | None,
    cache_dir: Path,
    host: str = GITHUB,
    known: Path | None = None,
    stopped: threading.Event | None = None,
) -> History:
    """The repository of a task: `known`, else `repos`/<owner>__<name>, with or without .git, else a clone from `host`.

    Raises TaskError naming instance, repository and commit when there is none or it lacks the base commit,
    BuildingStopped when `stopped` is set.
    """
    stopped = stopped or threading.Event()
    if known is not None:
        return _with_commit(History(known.absolute(), task.instance_id, stopped), task)
    name = task.repo.replace("/", "__")
    given = [repos / name, repos / f"{name}.git"] if repos is not None else []
    for folder in given:
        if folder.is_dir():
            return _with_commit(History(folder.absolute(), task.instance_id, stopped), task)
    folder = _cloned(task, cache_dir / "repositories" / f"{name}.git", host, stopped)
    clone = History(folder, task.instance_id, stopped)
    if not clone.commit(task.base_commit):
        with locked(folder, stopped):
            _network(task, folder, ("fetch", "-q", "--tags", "origin", "+refs/heads/*:refs/heads/*"), stopped)
            if not clone.commit(task.base_commit):
                _network(task, folder, ("fetch", "-q", "origin", task.base_commit), stopped, must=False)
    return _with_commit(clone, task)


def _with_commit(history: History, task: Task) -> History:
    if history.commit(task.base_commit):
        return history
    raise TaskError(
        f"{task.instance_id}: {history.folder} (repository {task.repo}) has no commit {task.base_commit}; fetch it "
        "there, or give --repos a folder whose clone of the repository has it"
    )


def _cloned(task: Task, folder: Path, host: str, stopped: threading.Event) -> Path:
    def build(draft: Path) -> None:
        _network(task, draft, ("clone", "-q", "--bare", f"{host}/{task.repo}", "."), stopped)

    return made_once(folder, build, stopped)


def _network(task: Task, folder: Path, arguments: Sequence[str], stopped: threading.Event, must: bool = True) -> None:
    told = f"{task.instance_id}: repository {task.repo} (for commit {task.base_commit})"
    advice = f"put a clone named {task.repo.replace('/', '__')} into a folder and give it as --repos"
    try:
        done = run_git(folder, arguments, _CLONE_TIMEOUT_S, stopped=stopped)
    except subprocess.TimeoutExpired as error:
        raise TaskError(f"{told}: git {arguments[0]} took more than {_CLONE_TIMEOUT_S:g} s; {advice}") from error
    if done.returncode and must:
        reason = " ".join(done.stderr.decode(errors="replace").split())[-300:]
        raise TaskError(f"{told} cannot be cloned: {reason}; {advice}")
