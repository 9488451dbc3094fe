"""One step of the ReAct loop: from the response's text to the observation (PAPER.md, section 3.3)."""

from dataclasses import dataclass, replace

from turnwise.agent.config import AgentConfig
from turnwise.agent.guard import refusal
from turnwise.agent.observation import FORMAT_ERROR_TEXTS, Observation, describe, prompt_line
from turnwise.agent.parsing import parse_response
from turnwise.agent.tools import STATE_DIR
from turnwise.sandbox.protocol import Sandbox

_STATE_TIMEOUT_S = 20.0
# Prints one line each: submitted or not, the window's first line, the open file. It runs at every turn, so the shell
# reads the file itself: a process would take as long again.
_READ_STATE = (
    f"cd {STATE_DIR} 2>/dev/null || exit 0; "
    "if [ -e submitted ]; then rm -rf submitted; echo submitted; else echo -; fi; "
    '[ -f window ] || exit 0; while IFS= read -r line || [ "$line" ]; do printf "%s\\n" "$line"; done <window'
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
    """Ask in a process of its own: neither what the agent did to its shell nor its output can pass for the answer."""
    result = await sandbox.run_apart(_READ_STATE, _STATE_TIMEOUT_S)
    lines = result.output.rstrip("\n").split("\n", 2)
    return _State(
        submitted=lines[0] == "submitted",
        workdir=sandbox.directory,
        open_file=lines[2] if len(lines) > 2 else None,
        exec_s=result.duration_s,
    )
