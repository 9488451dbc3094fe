"""The agent's tools: executables that a sandbox shows read-only and puts first on PATH."""

import py_compile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from turnwise.types import Mount, SandboxSpec

TOOLS_DIR = "/opt/turnwise/tools"  # in the sandbox
STATE_DIR = "/tmp/.turnwise"  # in the sandbox: the open file, its window, the mark that `submit` leaves
_BIN = Path(__file__).parent / "bin"


def tools_mount() -> Mount:
    """Where the tools are on the host and where a sandbox shows them (read-only).

    Compiles their modules first where it can: a sandbox cannot, and every call would take that time.
    """
    for module in _BIN.glob("*.py"):
        with suppress(OSError):
            py_compile.compile(str(module))
    return Mount(_BIN, TOOLS_DIR)


def with_tools(spec: SandboxSpec, window_lines: int) -> SandboxSpec:
    """The same sandbox with the tools in it: mounted, first on PATH, showing `window_lines` lines at a time."""
    mounts = (*spec.mounts, tools_mount())
    env: Mapping[str, str] = {**spec.env, "TURNWISE_WINDOW": str(window_lines)}
    if spec.image:  # it has a PATH of its own, which only its shell knows
        return replace(spec, mounts=mounts, env=env, setup=(*spec.setup, f'export PATH={TOOLS_DIR}:"$PATH"'))
    path = spec.env.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return replace(spec, mounts=mounts, env={**env, "PATH": f"{TOOLS_DIR}:{path}"})
