"""Environments built for real, by uv in bubblewrap, and used by real sandboxes."""

import asyncio
import difflib
import os
import platform
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from turnwise.agent.patch import take_patch
from turnwise.errors import SandboxError, TaskError
from turnwise.sandbox import LocalBackend
from turnwise.tasks import EnvironmentStore, build_all
from turnwise.tasks.checkout import CheckoutStore
from turnwise.types import SourceDistribution, TestRun

from .conftest import OFFLINE_INSTALL, SETUP

pytestmark = pytest.mark.slow

RUNNING = f"{sys.version_info[0]}.{sys.version_info[1]}"
LIFE = {
    "pre_install": ("apt-get update && apt-get install -y gcc", "sed -i 's/pytest/pytest -rA/' tox.ini"),
    "requirements": "iniconfig==2.0.0\niniconfig-of-nobody==7.1\n-e git+https://github.com/acme/tiny@1#egg=tiny\n",
    "env": {"TINY": "yes"},
}
BUG = """\
--- a/src/tiny/__init__.py
+++ b/src/tiny/__init__.py
@@ -1,2 +1,2 @@
 def add(a, b):
-    return a - b
+    return b
"""


@pytest.fixture(scope="session")
def spec(cache, upstream):
    """The sandbox of a row that has a bit of everything."""
    return CheckoutStore(cache, upstream.repos).spec(upstream.task(**LIFE))


async def run(backend: LocalBackend, spec, command: str) -> str:
    async with backend.create(spec) as sandbox:
        done = await sandbox.exec(command, 60)
        return f"{done.output.strip()} [{done.exit_code}]"


async def test_the_project_is_installed_as_the_agent_edits_it(backend, spec):
    edit = "sed -i 's/a - b/a + b/' src/tiny/__init__.py; cd /"
    use = "python -c 'import tiny; print(tiny.__file__, tiny.add(2, 3))'"
    assert await run(backend, spec, f"{edit}; {use}") == "/testbed/src/tiny/__init__.py 5 [0]"
    assert await run(backend, spec, "echo $TINY; which python pip") == "yes\n/opt/env/bin/python\n/opt/env/bin/pip [0]"


async def test_builds_know_the_version_though_no_tag_is_left(backend, spec):
    told = await run(backend, spec, "cat src/tiny/_version.py; git tag")
    assert told == "TOLD = '1.1.dev1'\nTAG = 'v1.1.dev1' [0]"


async def test_the_agents_patch_is_empty_before_it_did_anything(backend, spec, upstream):
    async with backend.create(spec) as sandbox:
        assert (await sandbox.exec("git status --porcelain", 60)).output == ""
        assert await take_patch(sandbox, upstream.base) == ""
        await sandbox.exec("echo '# more' >> tox.ini; echo new > new.py", 60)
        patch = await take_patch(sandbox, upstream.base)
    assert "+# more" in patch
    assert "+new" in patch
    assert " commands = pytest -rA" in patch


async def test_the_environment_is_read_only_and_alone(backend, spec):
    assert (await run(backend, spec, "touch /opt/env/x")).endswith("[1]")
    listed = await run(backend, spec, "pip list --format=freeze --exclude-editable")
    assert {line.split("==")[0] for line in listed.removesuffix(" [0]").splitlines()} == {
        "iniconfig",
        "pip",
        "pytest",
        "setuptools",
        "wheel",
        *{"packaging", "pluggy", "pygments", "Pygments"} & {line.split("==")[0] for line in listed.splitlines()},
    }


def test_what_could_not_be_had_is_told(store, upstream):
    left_out = store.build(upstream.task(**LIFE)).left_out
    assert [line.split(":")[0] for line in left_out] == [
        "apt-get update",
        "apt-get install -y gcc",
        "-e git+https",
        "iniconfig-of-nobody==7.1",
    ]


def test_what_the_tests_import_is_compiled(store, upstream):
    by_pytest = upstream.task()
    by_program = replace(by_pytest, test_run=TestRun("A=1 ./check.py --all", "parse_log_django"))
    for task in (by_pytest, by_program):
        assert list((store.spec(task).root / "src" / "tiny" / "__pycache__").glob("__init__.*.pyc"))


async def test_a_package_that_is_nowhere_does_not_sink_the_others(store, upstream, backend):
    task = upstream.task(pip_packages=("iniconfig==1.1.1", "a-package-of-nobody"))
    (told,) = store.build(task).left_out
    assert told.startswith("a-package-of-nobody: cannot be had (")
    assert "iniconfig==1.1.1\n" in await run(backend, store.spec(task), "pip list --format=freeze")


@pytest.mark.parametrize(
    ("command", "file", "before", "after"),
    [
        ("python setup.py develop", "setup.py", SETUP, SETUP.replace("name=", "install_requires=['toolz'], name=")),
        ("make it", "Makefile", "", f"it:\n\t@pip install toolz\n\t{OFFLINE_INSTALL}\n"),
    ],
    ids=["setup.py", "make"],
)
async def test_what_a_command_installs_is_of_the_day_too(store, upstream, backend, command, file, before, after):
    lines = [text.splitlines(keepends=True) for text in (before, after)]
    patch = "".join(difflib.unified_diff(*lines, f"a/{file}" if before else "/dev/null", f"b/{file}"))
    task = upstream.task(install=(command,), setup_patch=patch)
    use = "python -c 'import tiny, toolz; print(toolz.__version__)'"
    assert await run(backend, store.spec(task), use) == "0.12.0 [0]"


async def test_requirements_files_are_those_of_the_commit_that_the_row_names(store, upstream, backend):
    task = upstream.task(requirement_files=("needs/tests.txt",))
    assert store.build(task).left_out == ("needs/tests.txt: the repository has no such file",)
    named = replace(task, environment_setup_commit=upstream.future)
    assert store.build(named).left_out == ()
    told = await run(backend, store.spec(named), "pip list --format=freeze; ls needs")
    assert "iniconfig==1.1.1\n" in told
    assert "No such file" in told


@pytest.mark.parametrize("name", ["needs/all.txt", "needs/round.txt"])
async def test_what_a_requirements_file_includes_is_found_though_the_file_does_not_go_whole(
    store, upstream, backend, name
):
    task = replace(upstream.task(requirement_files=(name,)), environment_setup_commit=upstream.future)
    (told,) = store.build(task).left_out
    assert told.startswith("a-package-of-nobody: cannot be had (")
    assert "iniconfig==1.1.1\n" in await run(backend, store.spec(task), "pip list --format=freeze")


def test_a_second_time_nothing_is_built(store, upstream, spec):
    before = spec.tree.stat().st_mtime_ns
    built = store.build(replace(upstream.task(**LIFE), instance_id="acme__tiny-8"))
    assert store.spec(upstream.task(**LIFE)) == spec
    assert built.build_s > 0
    assert spec.tree.stat().st_mtime_ns == before


@pytest.mark.parametrize("change", [{"base_commit": "0" * 40}, {"created_at": "2022-01-01"}])
def test_another_row_is_another_environment(store, upstream, change):
    assert store.key(replace(upstream.task(), **change)) != store.key(upstream.task())


async def test_a_setup_patch_is_where_the_agent_starts(store, upstream, backend):
    spec = store.spec(upstream.task(setup_patch=BUG, install=("true",)))
    command = "cat src/tiny/__init__.py; git log --all --oneline | wc -l; git grep -n 'a - b' $(git rev-list --all)"
    assert await run(backend, spec, command) == "def add(a, b):\n    return b\n1 [1]"


@pytest.mark.parametrize("name", ["HEAD~1", "release~1", "short"])
async def test_a_base_that_is_only_named_is_built_under_its_own_id(store, upstream, backend, name):
    name = upstream.base[:7] if name == "short" else name
    spec = store.spec(replace(upstream.task(), base_commit=name))
    assert await run(backend, spec, "git rev-parse HEAD; git status --porcelain") == f"{upstream.base} [0]"
    assert store.key(replace(upstream.task(), base_commit=name)) == store.key(upstream.task())


async def test_a_bug_on_a_mirrors_head_is_where_the_agent_starts(store, upstream, backend):
    bug = BUG.replace("return a - b", "return a + b  # mended")
    spec = store.spec(replace(upstream.task(setup_patch=bug, install=("true",)), base_commit="HEAD"))
    command = "cat src/tiny/__init__.py; git log --all --oneline | wc -l; git status --porcelain"
    assert await run(backend, spec, command) == "def add(a, b):\n    return b\n1 [0]"


def test_a_repository_that_moved_on_is_another_environment_to_the_next_run(git, upstream, cache, tmp_path):
    git(tmp_path, "clone", "-q", str(upstream.folder), "acme__tiny")
    task, store = replace(upstream.task(), base_commit="HEAD"), CheckoutStore(cache, tmp_path)
    before = store.key(task)
    git(tmp_path / "acme__tiny", "reset", "-q", "--hard", upstream.base)
    assert store.key(task) == before
    assert CheckoutStore(cache, tmp_path).key(task) == store.key(upstream.task())


async def test_a_project_without_pyproject_is_on_the_path_itself(store, upstream, backend):
    flat = "from setuptools import setup; setup(name='flat', packages=['flat'])"
    made = f"mkdir flat && touch flat/__init__.py && echo {shlex.quote(flat)} > setup.py"
    spec = store.spec(upstream.task(pre_install=(made,)))
    assert (
        await run(backend, spec, "cd / && python -c 'import sys, flat; print(\"/testbed\" in sys.path)'") == "True [0]"
    )


def test_an_install_that_fails_names_row_and_command_and_leaves_nothing(store, upstream, cache):
    task = upstream.task(install=("python -c 'raise SystemExit(\"error: no such thing\")'",))
    with pytest.raises(TaskError, match=r"^acme__tiny-7: `python -c .*no such thing"):
        store.build(task)
    assert not list((cache / "checkouts").glob(".making*"))


def test_a_full_disk_is_the_machines_failure_and_leaves_nothing(store, upstream, cache):
    before = set((cache / "checkouts").iterdir())
    for step in ("pre_install", "install"):
        with pytest.raises(SandboxError, match="is full: free some space"):
            store.build(upstream.task(**{step: ("echo much > /dev/full",)}))
    assert {path for path in (cache / "checkouts").iterdir() if not path.name.startswith(".")} <= before


def test_installs_cannot_reach_the_host(store, upstream, tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("secret")
    monkeypatch.setenv("SECRET", "1")
    probe = f'cat {tmp_path}/secret ~/.bashrc /etc/shadow; touch /usr/x; test -z "$SECRET" && ls -A ~ | wc -l > seen'
    spec = store.spec(upstream.task(install=(probe,)))
    assert (spec.tree / "seen").read_text().strip() == "0"
    assert not Path("/usr/x").exists()


@pytest.fixture
def another_python(tmp_path, monkeypatch) -> Path:
    """The prefix of a Python outside /usr that is found for the running one's version; a package is installed in it."""
    prefix, library = tmp_path / "python", f"lib/python{RUNNING}"
    unneeded = shutil.ignore_patterns("site-packages", "dist-packages", "test", "__pycache__")
    shutil.copytree(Path(sys.base_prefix, library), prefix / library, ignore=unneeded)
    (prefix / library / "site-packages").mkdir()
    (prefix / library / "site-packages" / "tiny.py").write_text("mended = True\n")
    (prefix / "bin").mkdir()
    shutil.copy(Path(sys.base_prefix, "bin", f"python{RUNNING}"), prefix / "bin")
    monkeypatch.setattr(sys, "_base_executable", str(prefix / "bin" / f"python{RUNNING}"))
    return prefix


async def test_another_python_than_ours_comes_without_its_packages(upstream, tmp_path, backend, another_python):
    store = EnvironmentStore(tmp_path, upstream.repos)
    spec = await store.prepare(upstream.task(install=("true",)))
    command = f"readlink -f $(which python); find {another_python} -path '*-packages/*' -o -path '*/_bundled/*'"
    assert await run(backend, spec, command) == f"{another_python}/bin/python{RUNNING} [0]"


async def test_one_that_fails_does_not_stop_the_others(cache, upstream):
    good, bad = upstream.task(**LIFE), upstream.task(python="3.1")
    told = []
    store = EnvironmentStore(cache, upstream.repos)
    failed = await build_all(store, [bad, good, bad], 2, lambda task, outcome: told.append((task, outcome)))
    assert failed == 2
    assert [str(outcome)[:40] for task, outcome in told if task is bad] == [
        "acme__tiny-7: its row wants Python 3.1, "
    ] * 2
    assert len(told) == 3


async def test_an_error_that_nobody_foresaw_does_not_stop_the_others(cache, upstream):
    good, odd = upstream.task(**LIFE), replace(upstream.task(), created_at="9999-99-99")
    told = {}
    store = EnvironmentStore(cache, upstream.repos)
    failed = await build_all(store, [odd, good], 1, lambda task, outcome: told.update({task.created_at: outcome}))
    assert (failed, told[good.created_at].python) == (1, platform.python_version())
    assert str(told["9999-99-99"]).startswith("acme__tiny-7: its environment cannot be made: ValueError: month must")


async def test_where_telling_fails_nothing_goes_on_and_the_error_is_plain(upstream, tmp_path):
    told = []

    def tell(task, outcome):
        told.append(outcome)
        raise BrokenPipeError("nobody reads on")

    tasks = [upstream.task(python="3.1"), upstream.task(install=("sleep 1234.5",))]
    with pytest.raises(BrokenPipeError, match="nobody reads on"):
        await build_all(EnvironmentStore(tmp_path, upstream.repos), tasks, 2, tell)
    await asyncio.sleep(1.5)  # in which the other one is ended, and would be told
    assert len(told) == 1


def test_building_can_be_stopped(upstream, tmp_path):
    store = CheckoutStore(tmp_path, upstream.repos)
    threading.Timer(1.5, store.stop).start()
    with pytest.raises(TaskError, match="building was stopped"):
        store.build(upstream.task(pre_install=("sleep 1234.5",)))
    assert "sleep 1234.5" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert not list((tmp_path / "checkouts").glob(".making*"))


def test_cloning_can_be_stopped(upstream, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = CheckoutStore(tmp_path, host=f"git://127.0.0.1:{silent.getsockname()[1]}")
        threading.Timer(0.5, store.stop).start()
        with pytest.raises(TaskError, match="building was stopped"):
            store.build(upstream.task())
        running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
        assert f"127.0.0.1:{silent.getsockname()[1]}" not in running
    assert not list(tmp_path.glob("*/.making*"))


def test_a_task_of_a_package_is_no_checkout(store, upstream):
    task = replace(upstream.task(), environment=SourceDistribution("tiny", "1.0", ""))
    with pytest.raises(TaskError, match="acme__tiny-7: its environment is not a repository's"):
        store.build(task)


@pytest.fixture
def odd(upstream, git, tmp_path):
    """(repositories, commit): the project with names of files that are no UTF-8 or hold a line end."""
    (repos := tmp_path / "repos").mkdir()
    git(repos, "clone", "-q", str(upstream.folder), "acme__tiny")
    folder = repos / "acme__tiny"
    for name in (b"caf\xe9.py", b'tests/line\nend "\xff".txt'):
        (folder / os.fsdecode(name)).write_text("x = 1\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Odd")
    return repos, git(folder, "rev-parse", "HEAD")


async def test_a_repository_with_names_that_are_no_utf8_is_built(backend, upstream, odd, tmp_path):
    repos, commit = odd
    spec = CheckoutStore(tmp_path / "cache", repos).spec(replace(upstream.task(), base_commit=commit))
    shown = await run(backend, spec, "cat caf*.py tests/line*; git status --porcelain")
    assert shown == "x = 1\nx = 1 [0]"
