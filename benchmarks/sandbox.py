"""What a sandbox costs: create + exec + destroy and fork, beside bare bubblewrap's and (where an engine runs) Docker's.

    python benchmarks/sandbox.py [--rounds 30] [--json]

Rounds of all contenders are interleaved, so that whatever else the machine does hits them alike; times are medians in
milliseconds, and `x bare` is the median of each round's own ratio.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from turnwise.sandbox import LocalBackend, SnapshotRef
from turnwise.sandbox.processes import descendants
from turnwise.sandbox.watchdog import proportional_bytes
from turnwise.types import SandboxSpec

_BARE = [
    "bwrap",
    "--ro-bind",
    "/",
    "/",
    "--unshare-all",
    "--die-with-parent",
    "--proc",
    "/proc",
    "--dev",
    "/dev",
    "true",
]
_AT_ONCE = 2 * (os.cpu_count() or 1)
_IMAGE = "turnwise-benchmark-true"

Contender = Callable[[], Awaitable[float]]


@dataclass
class Measured:
    """Milliseconds per round, by contender, in the order in which they run."""

    rounds: dict[str, list[float]] = field(default_factory=dict)

    def row(self, name: str) -> dict[str, float]:
        """Median, least, and the median of the ratio to bare bubblewrap of the same round."""
        times, bare = self.rounds[name], self.rounds["bare bwrap"]
        ratio = median(mine / its for mine, its in zip(times, bare, strict=True))
        return {"median_ms": round(median(times), 2), "min_ms": round(min(times), 2), "x_bare": round(ratio, 2)}


def make_repository(folder: Path, files: int) -> Path:
    """A directory tree with `files` files of 2 KiB."""
    for number in range(files):
        path = folder / f"d{number // 100}" / f"f{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n" * 340, encoding="utf-8")
    return folder


def timed(work: Callable[[], Awaitable[object]]) -> Contender:
    """`work` as a contender: awaits it and returns how many milliseconds it took."""

    async def run() -> float:
        started = time.perf_counter()
        await work()
        return (time.perf_counter() - started) * 1000

    return run


def command(*arguments: str) -> Callable[[], Awaitable[object]]:
    """Run a program to its end."""

    async def run() -> None:
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)  # noqa: ASYNC221 - nothing else runs meanwhile

    return run


def docker_answers() -> bool:
    """Whether there is an engine."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=20).returncode == 0


@contextmanager
def docker_image() -> Iterator[str | None]:
    """An image with `/bin/true` and its libraries, made from this machine and removed; None where no engine answers."""
    if not docker_answers():
        yield None
        return
    listed = subprocess.run(["ldd", "/bin/true"], capture_output=True, text=True, check=True, encoding="utf-8").stdout
    libraries = [word for word in listed.split() if word.startswith("/")]
    packed = subprocess.run(["tar", "-chP", "/bin/true", *libraries], capture_output=True, check=True).stdout
    subprocess.run(["docker", "import", "-", _IMAGE], input=packed, capture_output=True, check=True)
    try:
        yield _IMAGE
    finally:
        subprocess.run(["docker", "rmi", _IMAGE], capture_output=True, check=True)


async def use(backend: LocalBackend, spec: SandboxSpec) -> None:
    async with backend.create(spec) as sandbox:
        await sandbox.exec("true", timeout_s=60)


async def contenders(
    backend: LocalBackend, small: SandboxSpec, large: SandboxSpec, image: str | None
) -> dict[str, Contender]:
    found = {
        "bare bwrap": timed(command(*_BARE)),
        "create+exec+destroy": timed(lambda: use(backend, small)),
        "create+exec+destroy, 5,000 files": timed(lambda: use(backend, large)),
    }
    for name, spec in (("small", small), ("5,000 files", large)):
        async with backend.create(spec) as origin:
            await origin.exec("echo changed > changed", timeout_s=60)
            ref = await origin.snapshot()
        found[f"fork+exec+destroy, {name}"] = timed(lambda ref=ref: use_fork(backend, ref))
    if image is not None:
        found["docker run"] = timed(command("docker", "run", "--rm", "--network=none", image, "/bin/true"))
    return found


async def use_fork(backend: LocalBackend, ref: SnapshotRef) -> None:
    async with backend.fork(ref) as twin:
        await twin.exec("true", timeout_s=60)


def memory_mb() -> float:
    """What this process's descendants use, shared pages divided among their users."""
    return sum(proportional_bytes(process) for process in descendants(os.getpid())) / 2**20


async def inside(backend: LocalBackend, spec: SandboxSpec, rounds: int) -> dict[str, float]:
    """Costs within live sandboxes: a command, a snapshot, memory; and how many sandboxes an hour this machine makes."""
    before = memory_mb()
    async with backend.create(spec) as sandbox:
        idle_mb = memory_mb() - before
        commands = [await timed(lambda: sandbox.exec("true", timeout_s=60))() for _ in range(rounds * 10)]
        programs = [await timed(lambda: sandbox.exec("/bin/true", timeout_s=60))() for _ in range(rounds * 10)]
        snapshots = [await timed(sandbox.snapshot)() for _ in range(rounds)]
    started = time.perf_counter()
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one() -> None:
        async with gate:
            await use(backend, spec)

    await asyncio.gather(*(one() for _ in range(rounds * 4)))
    per_hour = rounds * 4 / (time.perf_counter() - started) * 3600
    return {
        "exec_builtin_ms": round(median(commands), 2),
        "exec_program_ms": round(median(programs), 2),
        "snapshot_ms": round(median(snapshots), 2),
        "idle_memory_mb": round(idle_mb, 2),
        "sandboxes_per_hour": round(per_hour),
    }


async def measure(rounds: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as scratch, docker_image() as image:
        small = SandboxSpec(make_repository(Path(scratch, "small"), 10))
        large = SandboxSpec(make_repository(Path(scratch, "large"), 5_000))
        backend = LocalBackend()
        try:
            racing = await contenders(backend, small, large, image)
            measured = Measured({name: [] for name in racing})
            for _ in range(rounds):
                for name, contender in racing.items():
                    measured.rounds[name].append(await contender())
            return {
                "rounds": rounds,
                "contenders": {name: measured.row(name) for name in racing},
                "live": await inside(backend, small, rounds),
            }
        finally:
            await backend.close()


def print_table(result: dict[str, object]) -> None:
    """The result for people."""
    print(f"{'':34}{'median ms':>11}{'min ms':>9}{'x bare':>9}")
    for name, row in result["contenders"].items():  # type: ignore[attr-defined]
        print(f"{name:34}{row['median_ms']:>11.2f}{row['min_ms']:>9.2f}{row['x_bare']:>9.2f}")
    if "docker run" not in result["contenders"]:  # type: ignore[operator]
        print(f"{'docker run':34}{'no engine':>11}")
    for name, value in result["live"].items():  # type: ignore[attr-defined]
        print(f"{name:34}{value:>11,}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="one JSON object in place of the table")
    arguments = parser.parse_args()
    result = asyncio.run(measure(arguments.rounds))
    if arguments.json:
        print(json.dumps(result))
    else:
        print_table(result)


if __name__ == "__main__":
    main()
