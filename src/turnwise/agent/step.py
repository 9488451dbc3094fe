"""One step of the ReAct loop: from the response's text to the observation (PAPER.md, section 3.3)."""

from dataclasses import dataclass, replace

from turnwise.agent.config import AgentConfig
from turnwise.agent.guard import refusal
from turnwise.agent.observation import FORMAT_ERROR_TEXTS, Observation, describe, prompt_line
from turnwise.agent.parsing import parse_response
from turnwise.agent.tools import STATE_DIR
from turnwise.sandbox.protocol import Sandbox
from turnwise.types import ExecResult

_STATE_TIMEOUT_S = 20.0
# In a subshell, so that nothing of the agent's own shell changes. Prints one line each: submitted or not, the
# directory, the window's first line, the open file.
_READ_STATE = (
    f'( d="$PWD"; cd {STATE_DIR} 2>/dev/null || {{ printf "%s\\n" - "$d"; exit 0; }}; '
    "if [ -e submitted ]; then rm -f submitted; echo submitted; else echo -; fi; "
    'printf "%s\\n" "$d"; cat window 2>/dev/null; exit 0 )'
)


@dataclass(frozen=True)
class _State:
    """What the shell and the tools hold after a command."""

    submitted: bool
    workdir: str
    open_file: str | None
    exec_s: float


async def act(sandbox: Sandbox, response_text: str, config: AgentConfig) -> Observation:
    """Do what the response asks for and say what came of it.

    A format error, an interactive program, a command that fails and one that runs out of time are observations. A
    sandbox that died raises `SandboxError`. `submitted` is True when the command ran `submit` and ended with status 0.
    """
    parsed = parse_response(response_text)
    if parsed.error is not None:
        not_run = Observation(FORMAT_ERROR_TEXTS[parsed.error], None, parsed.error, None, False, 0.0)
        return _with_prompt_line(not_run, await _read_state(sandbox))
    command = parsed.command or ""  # set wherever there is no error
    reason = refusal(command)
    if reason is not None:
        not_run = Observation(reason, command, None, None, False, 0.0)
        return _with_prompt_line(not_run, await _read_state(sandbox))
    return await run_command(sandbox, command, config)


async def run_command(sandbox: Sandbox, command: str, config: AgentConfig) -> Observation:
    """Run a command as `act` does, with neither parsing nor guard: what a resumed episode replays its turns with."""
    result = await sandbox.exec(command, config.command_timeout_s)
    state = await _read_state(sandbox)
    text = describe(result, config.max_observation_chars, config.command_timeout_s)
    submitted = state.submitted and result.exit_code == 0
    ran = Observation(text, command, None, result.exit_code, submitted, result.duration_s)
    return _with_prompt_line(ran, state)


def _with_prompt_line(observation: Observation, state: _State) -> Observation:
    text = f"{observation.text}\n{prompt_line(state.workdir, state.open_file)}"
    return replace(observation, text=text, exec_s=observation.exec_s + state.exec_s)


async def _read_state(sandbox: Sandbox) -> _State:
    """Ask the sandbox in a command of its own, so that no output of the agent's can pass for the answer."""
    return _parse_state(await sandbox.exec(_READ_STATE, _STATE_TIMEOUT_S))


def _parse_state(result: ExecResult) -> _State:
    """A shell that the agent has broken gives an unknown directory, not an error."""
    lines = result.output.rstrip("\n").split("\n", 3)
    return _State(
        submitted=lines[0] == "submitted",
        workdir=lines[1] if len(lines) > 1 else "?",
        open_file=lines[3] if len(lines) > 3 else None,
        exec_s=result.duration_s,
    )
