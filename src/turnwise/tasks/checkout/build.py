"""From a task's row and its repository to an installed environment: the steps in their order."""

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from turnwise.errors import TaskError
from turnwise.files import readable
from turnwise.tasks.cache import Scratch
from turnwise.tasks.checkout import needs
from turnwise.tasks.checkout.bench import ENV, Bench
from turnwise.tasks.checkout.install import Installer
from turnwise.tasks.checkout.pythons import pick_python
from turnwise.tasks.checkout.repositories import History
from turnwise.tasks.checkout.requirements import BROUGHT, CondaEnvironment, clean, read_conda, words
from turnwise.tasks.checkout.root import apply_setup, check_out, settle, version_told
from turnwise.types import Checkout, Installation, Task

_RECORD = "built.json"
_WARM_UP_TIMEOUT_S = 60.0
# From then on pytest's `-rA` tells every outcome in the form that rows' log parsers read.
_TELLS_ALL, _TELLS_ALL_SINCE = Version("6.0"), date(2020, 12, 31)


@dataclass(frozen=True)
class Built:
    """What was built: seconds, the Python and where it lies (`prefix`), and what of the row could not be had.

    Where the row's image is the environment, `prefix` is the image and `python` is empty: nobody looked into it.

    >>> Built(7.5, "/usr", "3.11.2", ("apt-get install gcc: the system's packages are not installed",)).python
    '3.11.2'
    """

    build_s: float
    prefix: str
    python: str
    left_out: tuple[str, ...]


def read_built(folder: Path) -> Built:
    """What `build` wrote down in a folder."""
    content = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    return Built(**{**content, "left_out": tuple(content["left_out"])})


def build(
    task: Task, checkout: Checkout, history: History, folder: Path, cache_dir: Path, stopped: threading.Event
) -> Built:
    """Make `folder`/root, the repository, and `folder`/venv, its environment; `folder` is empty and is moved later.

    `cache_dir` is where packages that were fetched are kept; `stopped` ends it.

    The task's base commit is a whole hash. Raises TaskError naming the task when the row or the repository does not
    give them.
    """
    started = time.monotonic()
    root, notes = folder / "root", folder / "notes"
    for made in (root, notes, cache_dir):
        made.mkdir(parents=True, exist_ok=True)
    lost = check_out(history, task.base_commit, root)
    apply_setup(root, checkout.setup_patch, task.instance_id)
    settings = _export_settings(task, checkout.installation, history, notes)
    days = [history.committed_on(commit) for commit in (task.base_commit, settings) if commit]
    day = max(*days, _day(task.created_at))
    python = pick_python(task.instance_id, _python_wanted(task, checkout.installation), root, day)
    left_out = [f"{readable(path)}: the repository lacks its content" for path in lost]
    version = history.version_at(task.base_commit)
    with _environment_in(cache_dir) as venv:
        bench = Bench(root, venv, notes, cache_dir, python, stopped, dict(checkout.installation.env))
        with version_told(root, version):
            left_out += _Steps(task, checkout.installation, bench, day, version, notes if settings else root).run()
        _warm_up(bench, task)
        shutil.move(venv, folder / "venv")
    settle(root, task.base_commit)
    shutil.rmtree(notes)
    built = Built(round(time.monotonic() - started, 2), str(python.prefix), python.version, tuple(left_out))
    (folder / _RECORD).write_text(json.dumps(asdict(built)), encoding="utf-8")
    return built


@contextmanager
def _environment_in(cache_dir: Path) -> Iterator[Path]:
    """A folder for an environment that is being made, where packages are kept (see Bench)."""
    scratch = Scratch(cache_dir / "making")
    try:
        (venv := scratch.folder / "venv").mkdir()
        yield venv
    finally:
        scratch.close()


def settings_commit(task: Task, installation: Installation) -> str:
    """The commit other than the base whose requirements and environment files a row means; "" where there is none.

    The official images took these files from `environment_setup_commit` (swebench.harness.test_spec.python).
    """
    named = installation.requirement_files or installation.environment_files
    return task.environment_setup_commit if named and task.environment_setup_commit != task.base_commit else ""


def _export_settings(task: Task, installation: Installation, history: History, folder: Path) -> str:
    """Write the files of `settings_commit` into a folder; the commit, "" where the base commit's are to be taken."""
    commit = settings_commit(task, installation)
    if not commit or not history.commit(commit):
        return ""
    history.export(commit, (*installation.requirement_files, *installation.environment_files), folder)
    return commit


def _python_wanted(task: Task, installation: Installation) -> str:
    """The exported environment knows better than the row's own word what its tests were run with."""
    if installation.environment.strip():
        conda = read_conda(installation.environment, f"{task.instance_id}: its conda environment")
        if conda.python:
            return conda.python
    return installation.python or (needs.python_of(task.test_run.command) if task.test_run else "")


def _day(created_at: str) -> date:
    """The day of a row's `created_at`; where it has none, one that is earlier than any."""
    match = re.match(r"\d{4}-\d\d-\d\d", created_at)
    return date.fromisoformat(match[0]) if match else date.min


class _Steps:
    """The installation of one task, step by step; `settings` is where the files that the row names lie."""

    def __init__(
        self, task: Task, installation: Installation, bench: Bench, day: date, version: str, settings: Path
    ) -> None:
        self._task = task
        self._row = installation
        self._bench = bench
        self._settings = settings
        self._version = version or (f"{task.version}.0" if re.fullmatch(r"\d+(\.\d+)*", task.version) else "")
        self._conda = self._read_conda()
        # A frozen list tells its own day. Else the row's; but nothing from before wheels for the Python were common.
        frozen, earliest = bool(installation.requirements.strip()), max(_TELLS_ALL_SINCE, bench.python.wheels_since)
        known = None if frozen else max(day, earliest)
        self._installer = Installer(bench, known, seeds=[seed for conda in self._conda for seed in conda.seeds])

    def run(self) -> list[str]:
        """All steps; what was left out."""
        self._installer.create()
        for command in self._row.pre_install:
            self._installer.preparation(command)
        self._dependencies()
        self._installer.wanted(words(self._row.pip_packages))
        for command in self._row.install or self._usual_install():
            self._project(command)
        if self._row_tells_no_needs:
            self._guessed_needs()
        self._test_tools()
        self._take_out_copies()
        return self._installer.left_out

    @property
    def _row_tells_no_needs(self) -> bool:
        row = self._row
        told = (row.requirements, row.requirement_files, row.environment, row.environment_files, row.pip_packages)
        return not any(told)

    def _read_conda(self) -> list[CondaEnvironment]:
        texts = {"its conda environment": self._row.environment}
        if not self._row.environment and not self._row.requirements:
            files = {name: self._settings / name for name in self._row.environment_files}
            texts |= {
                name: file.read_text(encoding="utf-8", errors="replace")
                for name, file in files.items()
                if file.is_file()
            }
        return [read_conda(text, f"{self._task.instance_id}: {what}") for what, text in texts.items() if text.strip()]

    def _dependencies(self) -> None:
        """A frozen text is complete; else the conda environments and the files of the repository."""
        if self._row.requirements.strip():
            pinned = (entry for conda in self._conda for entry in conda.packages.items())
            versions = {str(canonicalize_name(name)): version for name, version in pinned}
            pins = clean(self._row.requirements, self._task.repo, versions)
            self._installer.left_out += pins.left_out
            self._installer.frozen(pins.lines)
            return
        for conda in self._conda:
            if conda.certain:
                self._installer.frozen(conda.lines)
            else:
                self._installer.wanted(conda.lines)
            for package in sorted(BROUGHT.keys() & conda.packages.keys()):
                self._installer.take_out_unless_it_loads(package)
        self._installer.files(self._row.requirement_files, self._settings, **self._told)

    def _usual_install(self) -> tuple[str, ...]:
        packaged = any((self._bench.root / name).is_file() for name in ("setup.py", "pyproject.toml"))
        return ("pip install -e .",) if packaged else ()

    @property
    def _told(self) -> dict[str, str]:
        """The project's version, for setuptools_scm and pbr: no tag is left that they could read.

        Only where they are to: what the project needs and is built beside it would take the version for its own.
        """
        if not self._version or not needs.asks_git_for_its_version(self._bench.root):
            return {}
        return {"SETUPTOOLS_SCM_PRETEND_VERSION": self._version, "PBR_VERSION": self._version}

    def _project(self, command: str) -> None:
        """Run a command that installs the project."""
        done = self._installer.command(command, **self._told)
        if done.exit_code:
            raise TaskError(f"{self._task.instance_id}: `{command}` failed: {done.last_words}")

    def _guessed_needs(self) -> None:
        guessed = needs.needs_of_tests(self._bench.root, needs.project(self._site_packages))
        self._installer.files(guessed.files, self._bench.root, **self._told)
        self._installer.wanted(guessed.lines)

    def _test_tools(self) -> None:
        """The programs that run the tests, where nothing brought them yet, and a pytest that tells every outcome."""
        run, there = self._task.test_run, needs.versions(self._site_packages)
        tools = list(needs.tools(run.command)) if run else ["pytest"]
        self._installer.wanted([tool for tool in tools if tool not in there])
        project = needs.project(self._site_packages)
        own = project.metadata["Name"] if project else ""
        if "pytest" in tools and own != "pytest" and Version(there.get("pytest", "99")) < _TELLS_ALL:
            self._installer.newest(["pytest", *sorted(name for name in there if name.startswith("pytest-"))])

    def _take_out_copies(self) -> None:
        """pip goes where it carries a copy of the task's own project: that may have the fix in it."""
        vendored = self._site_packages / "pip" / "_vendor"
        own = self._task.repo.rsplit("/", 1)[-1].lower().replace("-", "_")
        if any((vendored / name).exists() for name in (own, f"{own}.py")):
            self._bench.uv("pip", "uninstall", "-q", "--python", f"{ENV}/bin/python", "pip", timeout_s=120)

    @property
    def _site_packages(self) -> Path:
        return self._bench.env / "lib" / f"python{self._bench.python.minor}" / "site-packages"


def _warm_up(bench: Bench, task: Task) -> None:
    """Let the tests that are there be collected once, so that what they import is compiled where sandboxes cannot.

    Where a program of the repository runs them, let it tell its options, for which it imports as much.

    It decides nothing: whatever goes wrong here shows when the tests are run. Warnings stay out of it, for a suite that
    takes them for errors would trip over those that only compiling gives.
    """
    named = {*task.test_files, *re.findall(r"(?m)^\+\+\+ b/(\S+\.py)$", task.test_patch)}
    files = sorted(path for path in named if (bench.root / path).is_file())
    options = ["--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:warnings"]
    program = needs.program_of(task.test_run.command, bench.root) if task.test_run else ""
    arguments = [program, "--help"] if program else ["-m", "pytest", *options, *files]
    if program or files:
        bench.run([f"{ENV}/bin/python", "-W", "ignore", *arguments], _WARM_UP_TIMEOUT_S)
