"""Many episodes in a row while something is killed every few seconds, and what is left of them: nothing should be.

    python benchmarks/soak.py [--episodes 500] [--backend local|docker --base-image IMAGE] [--every 6] [--json]

`turnwise eval` scores the stand-in on the frozen tasks. At random moments SIGKILL takes either the whole run, which is
then started again and goes on, or one process of one sandbox (with docker: one container). In the end every episode
must be there, or be given up because it was hit three times (the last ones to run are), and no process, mount, folder
or container of theirs. Exits with 1 where one is missing, or something is left.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from turnwise.sandbox.owner import LABEL, is_gone
from turnwise.sandbox.processes import descendants
from turnwise.sandbox.state import abandoned, default_parent
from turnwise.store import Journal

_ROOT = Path(__file__).parent.parent
_TASKS = 25
_LIMIT_S = 3_600.0
_SETTLE_S = 30.0


@dataclass
class Soak:
    """One run in `folder`, of `runs` episodes a task; `kills` counts what was killed."""

    folder: Path
    backend: str
    image: str
    runs: int
    every_s: float
    chance: random.Random
    tell: Callable[[str], None]
    kills: Counter[str] = field(default_factory=Counter)

    def run(self) -> None:
        """Until every episode is there. Raises SystemExit where the run fails by itself, or takes an hour."""
        deadline = time.monotonic() + _LIMIT_S
        while not self._once(deadline):
            self.tell(f"the run was killed at {self.episodes().total()} episodes, and is started again")

    def _once(self, deadline: float) -> bool:
        """Start the run and kill; True when it came to its end, False when it was killed itself."""
        with self._log.open("a", encoding="utf-8") as log:
            run = subprocess.Popen(
                self._command(), cwd=_ROOT, env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            while (code := self._waited_for(run)) is None:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{self.episodes().total()} episodes in {_LIMIT_S:g} s: too slow")
                self._kill(run)
        finally:
            run.kill()
            run.wait()
        if code not in (0, -signal.SIGKILL):
            raise SystemExit(f"the run failed ({code}):\n{self._log.read_text(encoding='utf-8')[-2000:]}")
        return code == 0

    def _waited_for(self, run: subprocess.Popen[bytes]) -> int | None:
        try:
            return run.wait(self.chance.uniform(0.5, 1.5) * self.every_s)
        except subprocess.TimeoutExpired:
            return None

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _kill(self, run: subprocess.Popen[bytes]) -> None:
        if self.chance.random() < 0.25:
            self.kills["whole runs"] += 1
            run.kill()
        elif self.backend == "docker":
            if containers := [name for name, owner in _containers() if owner.split(".")[-2] == str(run.pid)]:
                self.kills["containers"] += 1
                _docker("kill", self.chance.choice(containers), must=False)  # it may have ended just now
        elif found := _sandboxed(run.pid):
            with suppress(ProcessLookupError):
                os.kill(self.chance.choice(found), signal.SIGKILL)
                self.kills["processes of sandboxes"] += 1

    def _command(self) -> list[str]:
        options = {"--model": "models/standin", "--recipe": "recipes/quickstart.toml", "--limit": str(_TASKS)}
        options |= {"--runs": str(self.runs), "--run-dir": str(self.folder / "run")}
        settings = [f"sandbox.backend={self.backend}", f"sandbox.base_image={self.image}"]
        words = [*(word for pair in options.items() for word in pair), *(f"--set={one}" for one in settings)]
        return [str(Path(sys.executable).with_name("turnwise")), "eval", *words]

    def _environment(self) -> dict[str, str]:
        (temporary := self.folder / "tmp").mkdir(exist_ok=True)
        return os.environ | {"TMPDIR": str(temporary), "TURNWISE_CACHE": str(self.folder / "cache")}

    def episodes(self) -> Counter[str]:
        """How many episodes came to an end, by whose doing: "ended" or, of the infrastructure, "given up"."""
        if not self._journal.exists():
            return Counter()
        with Journal.read(self._journal) as journal:
            reasons = [stored.stop_reason for stored in journal.episodes()]
        return Counter("given up" if reason.is_infrastructure else "ended" for reason in reasons)

    def failures(self) -> dict[str, int]:
        """The infrastructure's failures by cause, as the journal counts them."""
        with Journal.read(self._journal) as journal:
            return dict(journal.failures_by_cause())

    @property
    def _journal(self) -> Path:
        return self.folder / "run" / "journal.sqlite"

    def left(self) -> list[str]:
        """What is still there of the sandboxes, in words."""
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        found = [f"mount {line}" for line in mounts if str(self.folder) in line]
        found += [f"process {pid}" for pid in _processes_that_see(self.folder)]
        found += [f"folder {path}" for path in (self.folder / "tmp").glob("*turnwise*")]
        found += [f"folder {path}" for path in abandoned(default_parent())]
        if self.backend == "docker":
            found += [f"container {name}" for name, owner in _containers("--all") if is_gone(owner)]
            found += [f"image {name}" for name in _docker("images", "-aq", "--filter", f"label={LABEL}")]
        return found


def _sandboxed(run: int) -> list[int]:
    """The processes below a run that are in a process namespace of their own."""
    ours, found = Path("/proc/self/ns/pid").readlink(), []
    for process in descendants(run):
        with suppress(OSError):
            if Path(f"/proc/{process.pid}/ns/pid").readlink() != ours:
                found.append(process.pid)
    return found


def _processes_that_see(folder: Path) -> list[int]:
    """Processes, ours aside, in whose view of the file system something of `folder` is mounted, or that run in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "mountinfo").read_text(encoding="utf-8") + (process / "cmdline").read_text(
                encoding="utf-8"
            ).replace("\0", " ")
        except OSError:
            continue
        if str(folder) in text and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


def _containers(*options: str) -> list[tuple[str, str]]:
    """The ids of containers, and who started each."""
    words = _docker("ps", *options, "--filter", f"label={LABEL}", "--format", f'{{{{.ID}}}} {{{{.Label "{LABEL}"}}}}')
    return list(zip(words[::2], words[1::2], strict=True))


def _docker(*arguments: str, must: bool = True) -> list[str]:
    """The words that docker says. Raises SystemExit where it fails, for then nothing is known of what is left."""
    if shutil.which("docker") is None:
        raise SystemExit("docker is not installed: what is left of containers cannot be told")
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=60, check=False, encoding="utf-8"
    )
    if done.returncode and must:
        raise SystemExit(f"docker {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout.split()


def main() -> None:
    """Run, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--backend", choices=("local", "docker"), default="local")
    parser.add_argument("--base-image", default="", help="with docker: an image with bash, git and Python")
    parser.add_argument("--every", type=float, default=6.0, help="seconds between kills, on average")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs = -(-options.episodes // _TASKS)
    console = Console(stderr=True)
    folder = Path(tempfile.mkdtemp(prefix="turnwise-soak-"))
    soak = Soak(
        folder, options.backend, options.base_image, runs, options.every, random.Random(options.seed), console.print
    )
    started = time.monotonic()
    try:
        soak.run()
        wall_s = round(time.monotonic() - started, 1)
        left = _settled(soak.left)
        asked, episodes = runs * _TASKS, soak.episodes()
        counts = {"asked": asked, **episodes, "wall_s": wall_s, "killed": dict(soak.kills)}
        counts |= {"failures": soak.failures(), "left": left}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        print(json.dumps(counts))
    else:
        for name, value in counts.items():
            Console().print(f"{name:10}{value}", highlight=False)
    raise SystemExit(0 if episodes.total() == asked and not left else 1)


def _settled(look: Callable[[], list[str]]) -> list[str]:
    """What is left once nothing of it goes away any more by itself."""
    until = time.monotonic() + _SETTLE_S
    while (found := look()) and time.monotonic() < until:
        time.sleep(1)
    return found


if __name__ == "__main__":
    main()
