"""What importing a room costs: nothing heavy where none is needed, and no side effect anywhere."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "vllm", "ray", "matplotlib", "trl", "openai")
LIGHT_ROOMS = (
    "turnwise",
    "turnwise.types",
    "turnwise.errors",
    "turnwise.tasks",
    "turnwise.sandbox",
    "turnwise.policy",
    "turnwise.store",
    "turnwise.agent",
    "turnwise.rewards",
    "turnwise.rollout",
    "turnwise.evaluation",
    "turnwise.report",
    "turnwise.config",
    "turnwise.cli",
)
HEAVY_ROOMS = ("turnwise.algorithms", "turnwise.trainer", "turnwise.pipeline", "turnwise.policy.torch_policy")
PROBE = """
import importlib, json, os, sys, threading
environment, handles = dict(os.environ), len(os.listdir("/proc/self/fd"))
importlib.import_module(sys.argv[1])
print(json.dumps({
    "modules": [name for name in sys.modules if "." not in name],
    "threads": threading.active_count(),
    "environment_kept": dict(os.environ) == environment,
    "new_handles": len(os.listdir("/proc/self/fd")) - handles,
}))
"""


def import_alone(module, folder):
    """What a fresh interpreter, standing in an empty folder, looks like after importing the module."""
    command = [sys.executable, "-c", PROBE, module]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("module", LIGHT_ROOMS)
def test_light_rooms_load_nothing_heavy(module, tmp_path):
    stdout, _ = import_alone(module, tmp_path)
    assert set(HEAVY) & set(json.loads(stdout)["modules"]) == set()


@pytest.mark.parametrize("module", ["turnwise.cli", "turnwise.rollout", "turnwise.report"])
def test_importing_does_nothing_else(module, tmp_path):
    stdout, stderr = import_alone(module, tmp_path)
    after = json.loads(stdout)  # one JSON line and nothing else: the import printed nothing
    assert (after["threads"], after["environment_kept"], after["new_handles"], stderr) == (1, True, 0, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", HEAVY_ROOMS)
def test_rooms_that_need_torch_import_alone(module, tmp_path):
    import_alone(module, tmp_path)
    assert list(tmp_path.iterdir()) == []
