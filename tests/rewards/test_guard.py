"""The guard where the code under test is the test machinery itself: a repository that is pytest."""

import subprocess
import sys
from pathlib import Path

import _pytest.main
import pytest

from turnwise.rewards.suite import suite_mount

_SCRIPT = """
import sys
sys.path[:0] = [{plugin!r}, "."]
from _pytest.config import get_config
from _pytest.main import Session
from turnwise_guard import Guard

alarms = []
manager = get_config().pluginmanager
guard = Guard(["_pytest/main.py", "stranger.py"], alarms.append)
guard.start(manager)
import stranger
manager.register({registered})
guard.check_hooks(manager)
print(*alarms, sep="\\n")
"""
_STRANGER = "class Plugin:\n    def pytest_collectstart(self):\n        pass\n"


@pytest.mark.parametrize(
    ("registered", "alarms"),
    [
        ("Session.__new__(Session)", ""),
        ("stranger.Plugin()", "pytest_collectstart is hooked by code of the patch"),
    ],
)
def test_what_pytests_own_files_register_later_is_no_alarm(registered: str, alarms: str, tmp_path: Path) -> None:
    (tmp_path / "stranger.py").write_text(_STRANGER)
    (tmp_path / "_pytest").symlink_to(Path(_pytest.main.__file__).parent)
    script = _SCRIPT.format(plugin=str(suite_mount().host), registered=registered)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == alarms
