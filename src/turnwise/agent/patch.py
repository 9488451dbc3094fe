"""Taking the agent's work out of its sandbox: the difference between the working tree and the base commit."""

import logging
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from turnwise.agent.config import AgentConfig
from turnwise.errors import SandboxError
from turnwise.sandbox.protocol import Sandbox
from turnwise.types import ExecResult

STATE = "/tmp/.turnwise-patch"  # in the sandbox
_TIMEOUT_S = 50.0  # a repository in which git hangs is the policy's doing as well
_KILLED = (-9, 128 + 9)  # SIGKILL, from the sandbox or by a shell's status: what runs out of memory ends so
# Files are taken as they are, and shown as text wherever they are text.
_AS_THEY_ARE = "* !text !eol !crlf !ident !filter !working-tree-encoding !diff"
_ALL_BINARY = "* -diff"
_SECTION = re.compile(rb"^(?=diff --git )", re.MULTILINE)
_REASONS = {
    "repository": "a git repository of its own",
    "special": "neither a file, a directory nor a link",
    "submodule": "changes inside a submodule",
    "unreadable": "cannot be read",
    "name": "git takes no file of that name",
}
_NAMED = 20
_NAME_CHARS = 200
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What an agent submits. `left_out` names, in a sentence each, what the patch does not carry.

    >>> Work("", ("t: a git repository of its own",)).patch
    ''
    """

    patch: str
    left_out: tuple[str, ...] = ()


async def base_of(sandbox: Sandbox, base_commit: str, workdir: str = "/testbed") -> str:
    """The commit that the work in a fresh sandbox is told from: `base_commit`, or where the sandbox starts, if it is
    no whole hash.

    A name ("HEAD" in SWE-smith's rows, a branch) means something in the repository upstream; here it would move with
    the agent's own commits, or is not there. Raises `SandboxError`.
    """
    if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", base_commit):
        return base_commit
    done = await sandbox.run_apart(
        f"git -c safe.directory='*' -C {shlex.quote(workdir)} rev-parse -q --verify 'HEAD^{{commit}}'", _TIMEOUT_S
    )
    if done.exit_code:
        raise SandboxError(f"the repository in the sandbox has no commit, where its base is {base_commit}")
    return done.output.strip()


async def take_patch(sandbox: Sandbox, base_commit: str, workdir: str = "/testbed") -> str:
    """The patch of `take_work`."""
    return (await take_work(sandbox, base_commit, workdir)).patch


async def take_work(
    sandbox: Sandbox, base_commit: str, workdir: str = "/testbed", max_bytes: int = AgentConfig.max_patch_bytes
) -> Work:
    """What is submitted: everything that differs from `base_commit`, as `git apply` takes it; "" when nothing does.

    New files and commits of the agent's own count, and what it tracks though it is ignored; other ignored files and
    compiled Python do not. Files come byte for byte, those that are not UTF-8 in git's binary form. A repository that
    the agent has broken and a patch of over `max_bytes` give "": both are the policy's doing. What is left out, and
    why, is also in the log. Raises `SandboxError` when the sandbox died, or git was killed twice in a row: nothing
    then tells what the agent's work is.
    """
    taking = _Taking(sandbox, base_commit, workdir)
    try:
        work = await taking.take(max_bytes)
    except _NoPatch as error:
        work = Work("", (f"no patch can be taken: {error}",))
    for each in work.left_out:
        _log.warning("left out of the patch: %s", each)
    return work


class _NoPatch(Exception):
    """The repository is broken."""


@dataclass(frozen=True)
class _Taking:
    """One run of `take_patch.sh` after another, until the patch is text in UTF-8."""

    sandbox: Sandbox
    base: str
    workdir: str

    async def take(self, max_bytes: int) -> Work:
        attributes, taken = _AS_THEY_ARE, await self._run(_AS_THEY_ARE)
        converted = list(_conversions(await self._read_if("attributes", taken)))
        if converted:
            try:
                taken = await self._run("\n".join([_AS_THEY_ARE, *converted]))
                attributes = "\n".join([_AS_THEY_ARE, *converted])
            except _NoPatch:  # bytes that are not in the encoding that the attributes name
                taken = await self._run(_AS_THEY_ARE)
        left_out = _named(await self._read_if("left-out", taken))
        if taken.size > max_bytes:
            too_long = f"the whole patch: {taken.size:,} bytes, where agent.max_patch_bytes is {max_bytes:,}"
            return Work("", (too_long, *left_out))
        return Work(await self._text(taken, attributes), left_out)

    async def _text(self, taken: "_Taken", attributes: str) -> str:
        patch = await self._patch(taken)
        if not _is_text(patch):
            await self._run(attributes, again="names")
            for binary in (_not_text(patch, await self._read("names")), [_ALL_BINARY]):
                patch = await self._patch(await self._run("\n".join([attributes, *binary]), again="again"))
                if _is_text(patch):
                    break
            else:
                raise _NoPatch("git does not write it as text")
        return patch.decode("utf-8")

    async def _run(self, attributes: str, again: str = "") -> "_Taken":
        """Run the script."""
        arguments = (self.workdir, self.base, STATE, attributes, again)
        script = f"set -- {shlex.join(arguments)}\n{_script()}"
        done = await self.sandbox.run_apart(script, _TIMEOUT_S)
        if done.exit_code in _KILLED:
            done = await self.sandbox.run_apart(script, _TIMEOUT_S)
        if done.exit_code in _KILLED:
            raise SandboxError("git was killed twice while the patch was taken; give the sandbox more memory")
        return _taken(done)

    async def _patch(self, taken: "_Taken") -> bytes:
        return await self._read("patch") if taken.patch is None else taken.patch

    async def _read_if(self, name: str, taken: "_Taken") -> bytes:
        """An empty file is not read, for each that is costs as much as a command."""
        return await self._read(name) if name in taken.others else b""

    async def _read(self, name: str) -> bytes:
        try:
            return await self.sandbox.read(f"{STATE}/{name}")
        except FileNotFoundError as error:
            raise _NoPatch(f"{error} is gone") from error


@cache
def _script() -> str:
    return (resources.files("turnwise.agent") / "take_patch.sh").read_text("utf-8")


@dataclass(frozen=True)
class _Taken:
    """What the script said: the patch's size in bytes, which other files are not empty, and the patch, if it is whole:
    what a command prints may be cut, and what is not UTF-8 in it is replaced."""

    size: int
    others: tuple[str, ...]
    patch: bytes | None


def _taken(done: ExecResult) -> _Taken:
    first, _, rest = done.output.partition("\n")
    size, *others = first.split() or [""]
    if done.exit_code != 0 or not size.isdecimal():
        last = done.output.strip().splitlines()[-1:]
        raise _NoPatch(last[0] if last else f"exit status {done.exit_code}")
    patch = rest.encode("utf-8")
    whole = len(patch) == int(size) and "\ufffd" not in rest
    return _Taken(int(size), tuple(others), patch if whole else None)


def _fields(listing: bytes) -> list[bytes]:
    return listing.split(b"\0")[:-1]


def _named(listing: bytes) -> tuple[str, ...]:
    """From "word path" each to sentences, at most `_NAMED` of them."""
    found = []
    for entry in sorted(set(_fields(listing))):
        word, _, path = entry.decode("utf-8", "backslashreplace").partition(" ")
        found.append(f"{path[:_NAME_CHARS]}: {_REASONS.get(word, word)}")
    more = [f"{len(found) - _NAMED:,} more"] if len(found) > _NAMED else []
    return (*found[:_NAMED], *more)


def _conversions(listing: bytes) -> Iterator[str]:
    """Lines of an attributes file for the files that git writes to the tree otherwise than they are in a commit.

    They are taken as git would take them, for so `git apply` writes them. `listing` is what `git check-attr -z` says:
    path, attribute, value. Where a checkout changes no byte, no conversion may happen on the way back, either.
    """
    fields = _fields(listing)
    by_path: dict[bytes, dict[bytes, bytes]] = {}
    for path, name, value in zip(fields[::3], fields[1::3], fields[2::3], strict=False):
        by_path.setdefault(path, {})[name] = value
    for path, said in by_path.items():
        attributes = [*_line_ends(said), *(["ident"] if said.get(b"ident") == b"set" else [])]
        encoding = said.get(b"working-tree-encoding", b"unspecified")
        if encoding not in (b"unspecified", b"unset", b"set", b""):
            attributes.append(f"working-tree-encoding={encoding.decode('utf-8', 'replace')}")
        if attributes:
            yield f"{_pattern(path)} {' '.join(attributes)}"


def _line_ends(said: Mapping[bytes, bytes]) -> Iterable[str]:
    text = said.get(b"text", b"unspecified")
    if said.get(b"eol") != b"crlf" or text == b"unset":
        return []
    return ["text=auto" if text == b"auto" else "text", "eol=crlf"]


def _not_text(patch: bytes, names: bytes) -> Iterator[str]:
    """Lines of an attributes file that have those files shown as binary whose part of the patch is not UTF-8."""
    paths = []
    fields = _fields(names)
    for status, path in zip(fields[::2], fields[1::2], strict=False):
        paths += [path] * (2 if status == b"T" else 1)  # another type: one part that deletes and one that creates
    parts = _SECTION.split(patch)[1:] if patch else []
    if len(parts) != len(paths):
        return
    for path, part in zip(paths, parts, strict=True):
        if not _is_text(part):
            yield f"{_pattern(path)} -diff"


def _is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode("utf-8")
    except UnicodeDecodeError:
        return False


def _pattern(path: bytes) -> str:
    r"""The pattern of an attributes file that only `path` matches.

    >>> print(_pattern(b"a [1].py"))
    "/a \134[1].py"
    """
    escaped = re.sub(rb"[\\*?\[]", rb"\\\g<0>", path)
    plain = frozenset(range(32, 127)) - set(b'"\\')
    return '"/' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in escaped) + '"'
