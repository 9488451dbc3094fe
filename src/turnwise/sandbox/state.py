"""The folder where a backend keeps what must have a name on the host, and who removes it.

Three nets, because a killed process cleans nothing up: `close` removes the folder; a janitor (one idle `sh` per
backend) removes it the moment its owner is gone; and each start sweeps the folders whose owner and janitor both died.
Sandboxes' disks never lie here: they are tmpfs mounts that end with their sandbox's mount namespace.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

_JANITOR = 'read -r _; rm -rf -- "$1"'


def start_time(pid: int) -> str | None:
    """When a process started, in clock ticks since boot, as text; None when there is no such process."""
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[19]
    return None


def default_parent() -> Path:
    """Shared memory where it can be written (control files are made per command), else the temporary directory."""
    shared = Path("/dev/shm")
    return shared if os.access(shared, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def sweep(parent: Path) -> None:
    """Remove this user's state folders whose owning process is gone."""
    for folder in parent.glob(f"turnwise-{os.getuid()}-*"):
        pid, _, rest = folder.name.split("-", 2)[2].partition("-")
        if pid.isdigit() and start_time(int(pid)) != rest.partition("-")[0]:
            shutil.rmtree(folder, ignore_errors=True)


class StateFolder:
    """A backend's folder `turnwise-UID-PID-STARTTIME-RANDOM`, guarded by its janitor until `remove`."""

    def __init__(self, parent: Path) -> None:
        sweep(parent)
        owner = f"turnwise-{os.getuid()}-{os.getpid()}-{start_time(os.getpid())}"
        self.path = parent / f"{owner}-{secrets.token_hex(8)}"
        # The janitor comes first: no instant is left at which a killed owner would leave a folder behind.
        self._janitor = subprocess.Popen(
            ["/bin/sh", "-c", _JANITOR, "sh", str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # a Ctrl-C at the terminal, or a kill of its group, must not end it first
        )
        try:
            self.path.mkdir(mode=0o700)
        except OSError:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove the folder and end the janitor; blocks for a few milliseconds."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._janitor.communicate()
