"""A package made ready for task making: unpacked, its environment installed, its own suite run."""

import asyncio
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from turnwise.errors import TaskError
from turnwise.files import write_text_whole
from turnwise.tasks.baseline import (
    FileBaseline,
    Place,
    SuiteRunner,
    find_test_files,
    function_places,
    run_baseline,
    write_calls_file,
)
from turnwise.tasks.cache import Scratch
from turnwise.tasks.environment import EnvironmentStore, copy_tree, sandbox_spec
from turnwise.tasks.options import MakeOptions
from turnwise.tasks.python_environment import PythonEnvironment
from turnwise.tasks.requirements import declared_requirements
from turnwise.tasks.sdist import Sdist, fetch_sdist
from turnwise.together import together
from turnwise.types import SandboxSpec, SourceDistribution, SuiteResult

_SUITE_TIMEOUT_S = 600.0
_INSTALLS = 5
_NO_MODULE = re.compile(r"No module named '([\w.]+)'")
# Modules whose distribution has another name.
_DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "dateutil": "python-dateutil",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "mock": "mock",
}


@dataclass(frozen=True)
class Package:
    """What the search for bugs works on.

    `modules` maps each source file that may get a bug to its text, `places` its functions by the line of their `def`,
    `baseline` each usable test file to what it does. `scratch` holds temporary roots.
    """

    environment: SourceDistribution
    python: PythonEnvironment
    source: Path
    modules: Mapping[str, str]
    places: Mapping[str, Mapping[int, Place]]
    baseline: Mapping[str, FileBaseline]
    scratch: Scratch

    def new_root(self, name: str) -> Path:
        """A fresh copy of the clean source with what its build generates."""
        return _new_root(self.source, self.python, self.scratch.folder / name)

    def spec(self, root: Path) -> SandboxSpec:
        """A sandbox of this package's environment on a root."""
        return sandbox_spec(root, self.python, self.environment.import_paths)

    def close(self) -> None:
        """Remove the temporary roots."""
        self.scratch.close()


async def open_package(
    requirement: str, run_suite: SuiteRunner, environments: EnvironmentStore, options: MakeOptions
) -> Package:
    """Fetch, install and test the package `NAME` or `NAME==VERSION`.

    Raises TaskError when there is no such package or source distribution, it is not pure Python, it cannot be
    installed, ships no tests, or none of them passes.
    """
    sdist = await asyncio.to_thread(fetch_sdist, requirement, environments.cache_dir / "sdists")
    found = SourceDistribution(sdist.package, sdist.version, sdist.sha256)
    source = await asyncio.to_thread(environments.source, found)
    test_files = find_test_files(source)
    if not test_files:
        raise TaskError(
            f"{sdist.package}=={sdist.version}: its source distribution ships no tests; "
            "choose a package (or an older version) whose archive holds a tests folder"
        )
    scratch = await asyncio.to_thread(Scratch, environments.cache_dir / "work")
    try:
        builder = _Builder(sdist, source, environments, scratch.folder, run_suite)
        environment, python, module_files = await builder.build(test_files)
        modules = _readable(source, [f for f in module_files if f not in test_files and _wanted(f, options.files)])
        places = {file: function_places(file, text) for file, text in modules.items()}
        package = Package(environment, python, source, modules, places, {}, scratch)
        baseline = await _measure(package, test_files, run_suite, options)
        if not baseline:
            raise TaskError(
                f"{requirement}: none of its tests passes within {options.max_test_s:g} s a file; {builder.complaint} "
                "Allow more time or choose another version"
            )
    except BaseException:
        scratch.close()
        raise
    return replace(package, baseline=baseline)


async def _measure(
    package: Package, test_files: Sequence[str], run_suite: SuiteRunner, options: MakeOptions
) -> Mapping[str, FileBaseline]:
    """What each test file does on the clean source."""
    functions = {place for by_line in package.places.values() for place in by_line.values()}
    places = sorted(functions, key=lambda place: (place.file, place.lineno))
    root = package.new_root("baseline")
    write_calls_file(root, places)
    spec = package.spec(root)
    free = asyncio.Semaphore(options.concurrency)

    async def measured(file: str) -> FileBaseline | None:
        async with free:
            return await run_baseline(run_suite, spec, file, places, options.repeats, options.max_test_s)

    found = await together(map(measured, test_files))
    return {file: base for file, base in zip(test_files, found, strict=True) if base is not None}


def _wanted(file: str, files: Sequence[str]) -> bool:
    return not files or any(file == wanted or file.endswith("/" + wanted) for wanted in files)


def _readable(source: Path, files: Sequence[str]) -> dict[str, str]:
    """The texts of the files that can be spliced: UTF-8 with plain line ends, and not somebody else's code."""
    texts = {}
    for file in files:
        path = source / file
        if not path.exists() or re.search(r"(^|/)(_?vendor(ed)?|tests?|testing)/", file):
            continue
        content = path.read_bytes()
        try:
            text = content.decode("utf-8")
            function_places(file, text)
        except (UnicodeDecodeError, SyntaxError, ValueError):
            continue
        if "\r" not in text and not text.startswith("\ufeff"):
            texts[file] = text
    return texts


def _new_root(source: Path, python: PythonEnvironment, root: Path) -> Path:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    copy_tree(source, root)
    copy_tree(python.generated, root)
    return root


class _Builder:
    """Puts an environment together until the package's tests can be collected, then freezes it.

    What was found is noted in the cache: making tasks from the same package again goes on from there.
    """

    def __init__(
        self, sdist: Sdist, source: Path, environments: EnvironmentStore, workspace: Path, run_suite: SuiteRunner
    ) -> None:
        self._sdist = sdist
        self._source = source
        self._environments = environments
        self._workspace = workspace
        self._run_suite = run_suite
        self._note = (
            environments.cache_dir / "discovered" / f"{sdist.sha256}-{sys.version_info[0]}.{sys.version_info[1]}"
        )
        self.complaint = ""

    async def build(self, test_files: Sequence[str]) -> tuple[SourceDistribution, PythonEnvironment, tuple[str, ...]]:
        """The frozen description, the environment it stands for, and the package's module files in the repository."""
        if self._note.exists():
            noted = json.loads(self._note.read_text(encoding="utf-8"))
            self.complaint = noted["complaint"]
            environment = self._described(noted["requirements"], noted["import_paths"])
            python = await asyncio.to_thread(self._environments.python_environment, environment)
            return environment, python, tuple(noted["modules"])
        draft = PythonEnvironment(self._workspace / "environment")
        paths, modules = await asyncio.to_thread(self._install, draft)
        await self._install_missing(draft, paths, test_files)
        environment = self._described(draft.frozen(self._sdist.package), paths)
        python = await asyncio.to_thread(self._environments.adopt, environment, draft.folder)
        self._take_note(environment, modules)
        return environment, python, modules

    def _described(self, requirements: Sequence[str], paths: Sequence[str]) -> SourceDistribution:
        sdist = self._sdist
        return SourceDistribution(sdist.package, sdist.version, sdist.sha256, tuple(requirements), tuple(paths))

    def _take_note(self, environment: SourceDistribution, modules: Sequence[str]) -> None:
        found = {"requirements": environment.requirements, "import_paths": environment.import_paths}
        write_text_whole(self._note, json.dumps({**found, "modules": modules, "complaint": self.complaint}))

    def _install(self, draft: PythonEnvironment) -> tuple[tuple[str, ...], tuple[str, ...]]:
        draft.create()
        draft.install("pytest", str(self._sdist.path))
        _install_best_effort(draft, declared_requirements(self._source, draft.metadata(self._sdist.package)))
        return draft.take_out_modules(self._sdist.package, self._source)

    async def _install_missing(self, draft: PythonEnvironment, paths: Sequence[str], test_files: Sequence[str]) -> None:
        """Run the suite and install what its collection misses, as long as that brings something new."""
        tried: set[str] = set()
        spec = sandbox_spec(_new_root(self._source, draft, self._workspace / "draft"), draft, paths)
        for _ in range(_INSTALLS):
            result = await self._run_suite(spec, test_files, _SUITE_TIMEOUT_S)
            self.complaint = _complaint(result)
            missing = {
                m.partition(".")[0] for f in result.failures.values() for m in _NO_MODULE.findall(f.message)
            } - tried
            if not missing:
                return
            tried |= missing
            wanted = [_DISTRIBUTIONS.get(module, module.replace("_", "-")) for module in sorted(missing)]
            await asyncio.to_thread(_install_best_effort, draft, wanted)


def _install_best_effort(draft: PythonEnvironment, wanted: Sequence[str]) -> None:
    """All at once, or, where that fails, one by one: a requirement that is out of reach costs only its own tests."""
    if not wanted:
        return
    try:
        draft.install(*wanted)
    except TaskError:
        for requirement in wanted:
            try:
                draft.install(requirement)
            except TaskError:
                continue


def _complaint(result: SuiteResult) -> str:
    """One failure of the suite in a few words."""
    if not result.failures:
        return f"the suite ended with exit code {result.exit_code} ({result.log.strip()[-200:]})."
    test_id, failure = next(iter(result.failures.items()))
    return f"{test_id}: {failure.exception}: {failure.message.strip()[-200:]}."
