"""The demonstration shows what the scaffold really answers: it is replayed, turn by turn, in a real sandbox."""

from importlib.resources import files
from pathlib import Path

from turnwise.agent import AgentConfig, act, with_tools
from turnwise.sandbox import LocalBackend
from turnwise.types import SandboxSpec

TEXT = (files("turnwise.agent") / "prompts" / "demonstration.md").read_text()
TURNS = [turn.partition("\n\nOUTPUT\n\n") for turn in TEXT.split("\n\nREPLY\n\n")[1:]]


async def test_every_output_of_the_demonstration_is_the_real_one():
    root = Path(__file__).parent / "demonstration"
    spec = with_tools(SandboxSpec(root, env={"PYTHONDONTWRITEBYTECODE": "1"}), AgentConfig().window_lines)
    backend = LocalBackend()
    async with backend.create(spec) as sandbox:
        observations = [await act(sandbox, reply, AgentConfig()) for reply, _, _ in TURNS]
    await backend.close()
    assert [observation.text for observation in observations[:-1]] == [output for _, _, output in TURNS[:-1]]
    assert [observation.submitted for observation in observations] == [False] * (len(TURNS) - 1) + [True]
