"""A scripted demonstration says what the real tools say: the stand-in is trained on the words it will meet."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "standin"))

from corpus import Function, SourceFile
from demonstrations import Carelessness, demonstrate

from turnwise.agent import AgentConfig, act, with_tools
from turnwise.sandbox import LocalBackend
from turnwise.tasks import enumerate_mutants

CONFIG = AgentConfig(system_prompt="compact", window_lines=24)
CARELESS = Carelessness(format_error=0.4, detour=0.4)


@pytest.mark.parametrize("seed", range(4))
async def test_a_demonstration_reads_as_its_replay_in_a_real_sandbox(
    small_world, backend: LocalBackend, seed: int
) -> None:
    path = "calc.py"
    clean = (small_world.spec.root / path).read_text().replace("a - b", "a + b")
    mutants = tuple(m for m in enumerate_mutants(clean) if m.function == "add" and "a - b" in m.mutated)
    definition = f"./{path}:1:def add(a, b):"
    lines = tuple(clean.split("\n"))
    function = Function(SourceFile(path, lines), "add", 1, 2, 24, mutants, frozenset(), (), (definition,))
    chance = random.Random(seed)
    demonstration = demonstrate(function, mutants[0], "add is wrong", CARELESS, CONFIG.window_lines, chance)
    async with backend.create(with_tools(small_world.spec, CONFIG.window_lines)) as sandbox:
        for exchange in demonstration.exchanges:
            seen = await act(sandbox, exchange.response, CONFIG)
            assert exchange.observation in (seen.text, None)
    assert seen.submitted
