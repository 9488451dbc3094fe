"""kill -9 at random instants: the same command goes on, and the journal ends up as if nothing had happened."""

import os
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from turnwise.store import Journal

DRIVE = Path(__file__).with_name("drive.py")
KILLS = 10
# On a machine that others use too, whole runs take their time.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
EVENTS = (
    "SELECT (SELECT count(*) FROM turns) + (SELECT count(*) FROM verdicts) + (SELECT count(*) FROM updates)"
    " + (SELECT count(rewards) FROM episodes) + (SELECT count(*) FROM evaluations)"
)


class Driver:
    """Starts runs in processes of their own; `start` gives a pid, `wait` the exit status of the one last started."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, run_dir: Path) -> int:
        self._process.stdin.write(f"{run_dir}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def wait(self) -> int:
        return int(self._process.stdout.readline())


@pytest.fixture(scope="module")
def driver(small_world, mini, tmp_path_factory):
    spec = tmp_path_factory.mktemp("spec") / "spec.pickle"
    spec.write_bytes(pickle.dumps(small_world.spec))
    command = [sys.executable, str(DRIVE), str(mini / "mini.toml"), str(spec)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as process:
        yield Driver(process)
        process.stdin.close()


def events(run_dir: Path) -> int:
    """How many things the journal holds by now; 0 while there is none."""
    try:
        with sqlite3.connect(f"{(run_dir / 'journal.sqlite').as_uri()}?mode=ro", uri=True) as connection:
            return connection.execute(EVENTS).fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def signal_at(pid: int, run_dir: Path, instant: int, number: signal.Signals) -> None:
    """Send the signal once the journal holds `instant` things, unless the process ends before."""
    while events(run_dir) < instant and Path(f"/proc/{pid}").exists():
        time.sleep(0.005)
    os.kill(pid, number)


def contents(run_dir: Path) -> dict[str, object]:
    """What a journal says, without what clocks put into it."""
    with Journal.read(run_dir / "journal.sqlite") as journal:
        episodes = [journal.episode(key) for key in list(journal.keys())]
        return {
            "episodes": {
                str(each.key): (
                    each.trajectory().token_ids_T.tolist(),
                    each.trajectory().action_mask_T.tolist(),
                    each.stop_reason,
                    each.patch,
                    each.verdict and each.verdict.kind,
                    each.rewards,
                    [stored.turn.policy_version for stored in each.turns],
                )
                for each in episodes
            },
            "updates": [(step.stage, step.iteration, step.step) for step in journal.updates()],
            "evaluations": [(each.stage, each.iteration, each.figures) for each in journal.evaluations()],
            "failures": journal.failures_by_cause(),
        }


def processes_in(folder: Path) -> list[str]:
    """Command lines of living processes that name the folder."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        if str(folder) in line:
            lines.append(line)
    return lines


def test_killed_at_random_instants_a_run_ends_with_the_same_journal(driver, small_world, tmp_path):
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    driver.start(calm)
    assert driver.wait() == 0
    instants = sorted(random.sample(range(1, events(calm)), KILLS))
    for instant in instants:
        signal_at(driver.start(stormy), stormy, instant, signal.SIGKILL)
        assert driver.wait() == -signal.SIGKILL
    driver.start(stormy)
    assert driver.wait() == 0
    assert contents(stormy) == contents(calm), f"killed at {instants}"
    assert processes_in(small_world.spec.root) == []


def test_ctrl_c_closes_everything_and_passes_on(driver, small_world, tmp_path):
    signal_at(driver.start(tmp_path), tmp_path, 12, signal.SIGINT)
    assert driver.wait() == 130
    assert processes_in(small_world.spec.root) == []
