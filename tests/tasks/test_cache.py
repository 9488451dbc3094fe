"""What tasks keep on disk: made once, whole or not at all, and nothing left by those that were killed."""

import signal
import subprocess
import sys
from pathlib import Path

from turnwise.tasks.cache import Scratch

HOLD = """
import sys, time
from pathlib import Path
from turnwise.tasks.cache import Scratch
scratch = Scratch(Path(sys.argv[1]))
(scratch.folder / "root").mkdir()
print(scratch.folder, flush=True)
time.sleep(60)
"""


def test_what_a_killed_process_left_goes_with_the_next_and_what_is_used_stays(tmp_path):
    work = tmp_path / "work"
    with subprocess.Popen([sys.executable, "-c", HOLD, work], stdout=subprocess.PIPE, text=True) as process:
        theirs = Path(process.stdout.readline().strip())
        mine = Scratch(work)
        assert (theirs / "root").is_dir()
        process.send_signal(signal.SIGKILL)
    other = Scratch(work)
    assert set(work.iterdir()) == {mine.folder, other.folder}
    mine.close()
    other.close()
    assert not list(work.iterdir())
