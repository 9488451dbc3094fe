"""From a package to tasks and back to their repositories: real pip, real git, a real suite in real sandboxes."""

import asyncio
import dataclasses

import pytest

from turnwise.errors import TaskError
from turnwise.pipeline.task_making import make_task_file
from turnwise.rewards.suite import FreshSuiteRunner
from turnwise.rewards.verify import verify
from turnwise.tasks import EnvironmentStore, MakeOptions, make_tasks, read_tasks, write_tasks
from turnwise.tasks.repository import git
from turnwise.types import VerdictKind

pytestmark = pytest.mark.slow


@pytest.fixture
def cache(tmp_path_factory):
    """One cache for all tests here: environments cost seconds."""
    folder = tmp_path_factory.getbasetemp() / "tasks-cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
async def tasks(registry, make_sdist, package_files, cache, backend):
    made = cache / "made.jsonl"
    if not made.exists():
        registry.add("turnwise-demo", "turnwise_demo-1.0.tar.gz", make_sdist(package_files))
        options = MakeOptions(repeats=2, kinds=("boundary", "comparison", "removed_guard", "wrong_call"))
        runner = FreshSuiteRunner(backend)
        write_tasks(made, await make_tasks("turnwise-demo==1.0", runner, EnvironmentStore(cache), options))
    return read_tasks(made)


def _outcomes(task):
    return {name.partition("::")[2] for name in task.fail_to_pass}, {n.partition("::")[2] for n in task.pass_to_pass}


async def test_bugs_are_those_that_the_suite_notices(tasks):
    by_line = {(t.meta["function"], t.meta["kind"], t.meta["mutated"].strip()): _outcomes(t) for t in tasks}
    assert by_line["clamp", "comparison", "if value > low:  # too small"] == (
        {"test_clamp_low", "test_clamp_high"},
        {"test_mean", "test_mean_of_nothing"},
    )
    assert by_line["mean", "removed_guard", ""] == (
        {"test_mean_of_nothing"},
        {"test_clamp_low", "test_clamp_high", "test_mean"},
    )
    assert {function for function, _, _ in by_line} == {"clamp", "mean"}
    assert ("clamp", "boundary", "if value <= low:  # too small") not in by_line, "no test notices this one"


async def test_a_row_holds_what_a_reader_needs(tasks):
    for task in tasks:
        assert task.environment.import_paths == ("src",)
        assert any(pin.startswith("pytest==") for pin in task.environment.requirements)
        assert task.meta["outermost_function"] == task.meta["function"]
        assert task.meta["file"] == "src/turnwise_demo/numbers.py"
        added = [line[1:] for line in task.patch.splitlines() if line.startswith("+") and not line.startswith("+++")]
        assert added == task.meta["original"].splitlines()
        assert task.patch.count("@@") == 2
        assert task.meta["function"] in task.problem_statement
        assert task.meta["original"].strip().splitlines()[0] not in task.problem_statement


async def test_the_row_gives_its_base_commit_again(tasks, cache, tmp_path):
    task = tasks[0]
    spec = await EnvironmentStore(cache).prepare(task)
    assert git(spec.root, "log", "--format=%H").split() == [task.base_commit]
    assert git(spec.root, "status", "--porcelain") == ""
    text = (spec.root / "tests/test_numbers.py").read_text()
    assert not any(f"def {test_id.partition('::')[2]}(" in text for test_id in task.fail_to_pass)
    assert all(f"def {test_id.partition('::')[2]}(" in text for test_id in task.pass_to_pass)
    assert (spec.root / "notes.txt").read_bytes() == b"kept\r\n"
    assert task.meta["mutated"] in (spec.root / task.meta["file"]).read_text()


async def test_no_clean_source_is_within_reach(tasks, cache):
    spec = await EnvironmentStore(cache).prepare(tasks[0])
    (mount,) = spec.mounts
    files = [path for path in mount.host.rglob("*turnwise_demo*") if "dist-info" not in str(path)]
    assert files == []
    assert list(mount.host.rglob("turnwise_demo-1.0.dist-info/METADATA"))


async def test_concurrent_callers_get_the_same_root(tasks, cache):
    stores = [EnvironmentStore(cache) for _ in range(4)]
    specs = await asyncio.gather(*(store.prepare(task) for store in stores for task in tasks[:3]))
    assert len({spec.root for spec in specs}) == len(tasks[:3])
    assert not list((cache / "roots").glob(".making-*"))


async def test_hidden_tests_come_only_when_asked_for(tasks, cache):
    spec = await EnvironmentStore(cache).prepare(tasks[0], hidden_tests=True)
    text = (spec.root / "tests/test_numbers.py").read_text()
    assert all(f"def {test_id.partition('::')[2]}(" in text for test_id in tasks[0].fail_to_pass)


async def test_a_row_that_does_not_fit_together_is_refused(tasks, cache):
    changed = dataclasses.replace(tasks[0], base_commit="0" * 40)
    with pytest.raises(TaskError, match="not its base_commit"):
        await EnvironmentStore(cache).prepare(changed)


NO_BACKEND = "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'absent'\n"
USELESS = {
    "ships no tests": {"tests/test_numbers.py": "X = 1\n"},
    "none of its tests passes": {"tests/test_numbers.py": "def test_a():\n    assert 0\n"},
    "pip install .* failed": {"pyproject.toml": NO_BACKEND},
}


@pytest.mark.parametrize("message", USELESS)
async def test_a_package_that_is_no_use_is_refused(registry, make_sdist, package_files, cache, backend, message):
    name = f"useless{list(USELESS).index(message)}"
    files = {**package_files, **USELESS[message]}
    files["pyproject.toml"] = files["pyproject.toml"].replace("turnwise-demo", name)
    registry.add(name, f"{name}-1.0.tar.gz", make_sdist(files))
    with pytest.raises(TaskError, match=message):
        await make_tasks(f"{name}==1.0", FreshSuiteRunner(backend), EnvironmentStore(cache), MakeOptions(repeats=1))
    assert not list((cache / "work").iterdir())


async def test_a_package_whose_bugs_nobody_notices_is_refused(tasks, registry, cache, backend):
    options = MakeOptions(repeats=1, kinds=("loop_control",))
    with pytest.raises(TaskError, match="its tests noticed none of the bugs tried"):
        await make_tasks("turnwise-demo==1.0", FreshSuiteRunner(backend), EnvironmentStore(cache), options)


class OneAtATime:
    """Runs suites, and fails where one is running already; counts those that are."""

    def __init__(self, run_suite):
        self.run_suite, self.running = run_suite, 0

    async def __call__(self, *arguments, **options):
        self.running += 1
        try:
            if self.running > 1:
                raise OSError("no room for two")
            return await self.run_suite(*arguments, **options)
        finally:
            self.running -= 1


async def test_where_a_worker_fails_the_others_have_ended_before_their_roots_go(tasks, registry, cache, backend):
    runner = OneAtATime(FreshSuiteRunner(backend))
    with pytest.raises(OSError, match="no room for two"):
        await make_tasks("turnwise-demo==1.0", runner, EnvironmentStore(cache), MakeOptions(repeats=1, concurrency=2))
    assert runner.running == 0


def test_what_is_held_out_is_decided_over_all_packages(registry, make_sdist, package_files, tmp_path):
    names = ["turnwise-first", "turnwise-second"]
    for name in names:
        files = {**package_files, "pyproject.toml": package_files["pyproject.toml"].replace("turnwise-demo", name)}
        registry.add(name, f"{name}-1.0.tar.gz", make_sdist(files))
    options = MakeOptions(limit=1, repeats=1, held_out_by="package")
    said = {}
    found = make_task_file(names, tmp_path / "t.jsonl", options, lambda task: None, said.__setitem__)
    assert sorted(task.meta["split"] for task in found) == ["heldout", "train"]
    assert [task.meta["split"] for task in said["turnwise-second"]] == [found[1].meta["split"]]
    assert read_tasks(tmp_path / "t.jsonl") == found


async def test_a_fresh_machine_builds_everything_from_the_row(tasks, registry, tmp_path, backend):
    task = tasks[0]
    spec = await EnvironmentStore(tmp_path / "fresh").prepare(task)
    assert git(spec.root, "rev-parse", "HEAD").strip() == task.base_commit
    gold = await verify(task, task.patch, backend=backend, spec=spec, timeout_s=60)
    assert gold.kind is VerdictKind.RESOLVED, gold.log
