"""What is taken out of an episode's sandbox is exactly the agent's work, whatever it did to git."""

import logging
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from turnwise.agent import base_of, take_patch
from turnwise.agent.patch import STATE, take_work
from turnwise.errors import SandboxError
from turnwise.sandbox import FakeBackend, LocalBackend, Sandbox
from turnwise.sandbox.fake import ShellExit
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
        "mkdir -p __pycache__ && touch __pycache__/a.cpython-311.pyc b.pyc c.log .turnwise-edit-41",
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
    outcomes = iter([("", status), ("13", 0), ("", status), ("", status)])

    def whole_script(machine, arguments):
        output, machine.status = next(outcomes)
        raise ShellExit(machine.status, output)

    backend = FakeBackend({"set": whole_script})
    async with backend.create(SandboxSpec(root)) as sandbox:
        for name, content in {"patch": b"what git wrote", "left-out": b"", "attributes": b"", "names": b""}.items():
            await sandbox.write(f"{STATE}/{name}", content)
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


async def replayed(
    root: Path, commands: str, files: dict[str, bytes]
) -> tuple[dict[bytes, str], dict[bytes, str], str]:
    """What lies in the agent's tree after the commands, what in the base with its patch, and the patch."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "files", "--allow-empty")
    git(root, "rm", "-rq", "--cached", ".")
    git(root, "reset", "-q", "--hard")
    listing = "find . -path ./.git -prune -o -type f -print0 -o -type l -print0 | sort -z | "
    listing += (
        """xargs -0 stat -c '%A %s' ; find . -path ./.git -prune -o -type f -print0 | sort -z | xargs -0 sha1sum -z"""
    )
    backend = LocalBackend()
    async with backend.create(SandboxSpec(root)) as sandbox, backend.create(SandboxSpec(root)) as fresh:
        done = await sandbox.exec(commands, 20)
        assert done.exit_code == 0, done.output
        patch = await take_patch(sandbox, git(root, "rev-parse", "HEAD"))
        await fresh.write("/tmp/p", patch.encode())
        applied = await fresh.exec("git apply /tmp/p", 20)
        assert applied.exit_code == 0, applied.output
        trees = [(await each.run_apart(f"cd /testbed && {listing}", 20)).output for each in (sandbox, fresh)]
    await backend.close()
    return trees[0], trees[1], patch


LATIN = "n = '\xe9'\n".encode("latin-1")
CRLF = b"one\r\ntwo\r\n"


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({".gitattributes": b"*.py diff=python\n", "l.py": LATIN}, "sed -i 's/^n/m/' l.py"),
        ({".gitattributes": b"*.py text\n", "l.py": LATIN}, "sed -i 's/^n/m/' l.py"),
        ({".gitattributes": b"* -diff\n", "t.py": b"x\n"}, "echo y > t.py"),
        ({".gitattributes": b"*.txt text eol=crlf\n", "c.txt": CRLF, "d.txt": CRLF}, "sed -i 's/two/three/' c.txt"),
        ({".gitattributes": b"* text=auto\n", "c.txt": b"one\n"}, "sed -i 's/$/\\r/' c.txt"),
        ({".gitattributes": b"* text=auto\n"}, "printf 'a\\r\\nb\\n' > new.txt"),
        ({".gitattributes": b"*.txt text\n", "c.txt": CRLF}, "sed -i 's/two/three/' c.txt"),
        ({"c.txt": CRLF}, "sed -i 's/two/three/' c.txt; printf 'no end' >> c.txt"),
        ({"c.txt": CRLF}, "printf '* text eol=lf working-tree-encoding=UTF-16\\n' > .gitattributes; printf x >> c.txt"),
        ({".gitattributes": b"u.txt working-tree-encoding=UTF-16LE\n"}, "echo hé | iconv -t UTF-16LE > u.txt"),
        ({".gitattributes": b"u.txt working-tree-encoding=UTF-16LE\n"}, "printf '\\000\\330x' > v.txt"),
        ({".gitattributes": b"*.txt ident export-subst filter=x\n", "i.txt": b"x $Format:%H$\n"}, "echo y >> i.txt"),
        ({"n.bin": b"a\0b\n"}, "printf 'c\\000' >> n.bin; (seq 9000; printf '\\000') > late"),
        ({"m.sh": b"echo\n"}, "chmod +x m.sh; ln -s m.sh link; ln -s nowhere dangling"),
        ({"was": b"a\n"}, "rm was; ln -s '\\351' was; cp /bin/true true"),
        (
            {},
            "printf x > 'a b\"c'; printf y > $'caf\\xe9'; printf z > $'new\\nline'; printf '\\351' > $'[*?]\\\\\\xe9'",
        ),
        ({}, "printf '\\351' > \"$(printf 'x%.0s' $(seq 250))\"; mkdir D; printf 1 > D/a; printf 2 > D/A"),
        ({"Case": b"1\n"}, "git config core.ignoreCase true; git mv Case case; : > empty"),
        ({"x.py": b"x\n"}, "git config core.autocrlf true; git config diff.x.textconv false; echo y > x.py"),
        ({"x.py": b"x\n"}, "git config filter.x.clean 'tr a-z A-Z'; echo '* filter=x' > .gitattributes; echo y > x.py"),
        ({"x.py": b"x\n"}, "printf '[broken' > .git/config; echo y > x.py"),
        (
            {"x.py": b"x\n"},
            "printf '* diff=p\\n' > .git/info/attributes; git config diff.p.command false; echo y > x.py",
        ),
        (
            {"x.py": b"x\n"},
            "export GIT_DIFF_OPTS=-u0 GIT_EXTERNAL_DIFF=false LC_ALL=zh_CN.GBK; set -eux; echo y > x.py",
        ),
    ],
)
async def test_a_patch_gives_the_agents_tree_byte_for_byte(root, files, command):
    wanted, found, patch = await replayed(root, command, files)
    assert patch
    assert "d.txt" not in patch  # which nothing has changed
    assert found == wanted


@pytest.mark.parametrize(
    ("commands", "left_out"),
    [
        ("mkdir t; git -C t init -q", ("t: a git repository of its own",)),
        (
            "mkdir t; echo 1 > t/f; git -C t init -q; git -C t add f; "
            "git -C t -c user.name=a -c user.email=a@b commit -qm c",
            ("t: a git repository of its own",),
        ),
        ("echo 1 > git~1", ("git~1: git takes no file of that name",)),
        ("git worktree add -q wt", ("wt: a git repository of its own",)),
        ("mkfifo pipe", ("pipe: neither a file, a directory nor a link",)),
    ],
)
async def test_what_a_patch_cannot_carry_is_named_and_the_rest_is_taken(sandbox, root, commands, left_out, caplog):
    await sandbox.exec(f"{commands}; {CHANGE}", 20)
    work = await take_work(sandbox, git(root, "rev-parse", "HEAD"))
    assert work.left_out == left_out
    assert left_out[0] in caplog.text
    assert apply(root, work.patch) == "M a.py"


async def test_what_lies_too_deep_for_git_is_named(sandbox, root):
    deeper = "d=$(printf 'y%.0s' $(seq 200)); for i in $(seq 30); do mkdir $d; cd $d; done; echo 1 > f; cd /testbed"
    await sandbox.exec(f"{deeper}; {CHANGE}", 20)
    (left_out,) = (await take_work(sandbox, git(root, "rev-parse", "HEAD"))).left_out
    assert left_out.endswith("y: cannot be read")
    assert len(left_out) < 300


async def test_changes_inside_a_submodule_are_named(root, tmp_path):
    git(tmp_path, "clone", "-q", str(root), "other")
    git(root, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(tmp_path / "other"), "sub")
    git(root, "commit", "-qm", "with a submodule")
    backend = LocalBackend()
    async with backend.create(SandboxSpec(root)) as sandbox:
        base = git(root, "rev-parse", "HEAD")
        assert (await take_work(sandbox, base)).left_out == ()
        await sandbox.exec(f"echo 1 >> sub/a.py; {CHANGE}", 20)
        work = await take_work(sandbox, base)
    await backend.close()
    assert work.left_out == ("sub: changes inside a submodule",)
    assert "+x2 = 3" in work.patch
    assert "Subproject" not in work.patch


@pytest.mark.parametrize(
    "tracking",
    [
        "git add -f build/x.py",
        "git add -f . && git -c user.name=a -c user.email=a@b commit -qm w",
        "git add -f . && git -c user.name=a -c user.email=a@b commit -qm w && rm .git/index && touch .git/index.lock",
        "git add -f . && git -c user.name=a -c user.email=a@b commit -qm w && git checkout -q --detach",
    ],
)
async def test_what_the_agent_tracks_counts_though_it_is_ignored(sandbox, root, tracking):
    patch = await taken(sandbox, root, f"mkdir build; echo 1 > build/x.py; echo build/ > .gitignore; {tracking}")
    apply(root, patch)
    assert (root / "build" / "x.py").read_text() == "1\n"


async def test_what_is_ignored_now_and_was_tracked_is_taken(sandbox, root):
    patch = await taken(sandbox, root, f"echo a.py >> .gitignore; {CHANGE}; touch b.log")
    assert apply(root, patch) == "M .gitignore\n M a.py"


async def test_a_patch_over_the_limit_is_kept_out_and_the_reason_named(sandbox, root):
    await sandbox.exec(f"head -c 2000 /dev/urandom | od > junk; {CHANGE}", 20)
    work = await take_work(sandbox, git(root, "rev-parse", "HEAD"), max_bytes=1_000)
    assert work.patch == ""
    assert work.left_out[0].startswith("the whole patch: ")
    assert "agent.max_patch_bytes is 1,000" in work.left_out[0]


@pytest.mark.parametrize("ignored", ["nothing", "'.turn*'"])
async def test_what_a_killed_edit_left_is_not_taken(sandbox, root, ignored):
    left = "mkdir d; echo 1 > .turnwise-edit-7; echo 1 > d/.turnwise-edit-81; git add -A"
    patch = await taken(sandbox, root, f"{left}; {CHANGE}; echo {ignored} >> .gitignore")
    assert "+x2 = 3" in patch
    assert ".turnwise-edit" not in patch


async def test_taking_a_patch_leaves_the_repository_as_it_was(sandbox, root):
    # Of a file that is younger than its index, git cannot tell that nobody has changed it.
    await sandbox.exec(f"touch -d '1 hour ago' * .gitignore; {CHANGE}; touch /tmp/before; sleep 0.05", 20)
    assert await take_patch(sandbox, git(root, "rev-parse", "HEAD"))
    assert (await sandbox.exec("find /testbed -newer /tmp/before", 20)).output == ""


async def test_undecodable_bytes_as_long_as_what_replaces_them_survive(sandbox, root):
    patch = await taken(sandbox, root, "printf 'cut \\360\\237\\230 off\\n' > b.txt")
    apply(root, patch)
    assert (root / "b.txt").read_bytes() == b"cut \xf0\x9f\x98 off\n"
