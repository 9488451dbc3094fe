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


LONG = """def total(items, start):
    seen = set()
    result = start
    for item in items:
        if item in seen:
            continue
        seen.add(item)
        if item < 0:
            result = result - item
        else:
            result = result + item
        if result > 1000:
            break
    return result
"""


async def test_a_second_try_mends_what_a_wrong_line_did_not(small_world, backend: LocalBackend) -> None:
    lines = tuple(LONG.split("\n"))
    mutant = next(m for m in enumerate_mutants(LONG) if m.mutated == "        if item <= 0:\n")
    function = Function(
        SourceFile("long.py", lines), "total", 1, 14, 24, (mutant,), frozenset(), (), ("./long.py:1:def total(",)
    )
    care = Carelessness(wrong_line=1.0, second_try=1.0)
    drawn = [demonstrate(function, mutant, "", care, CONFIG.window_lines, random.Random(seed)) for seed in range(20)]
    twice = [one for one in drawn if sum("edit " in exchange.response for exchange in one.exchanges) == 2]
    assert 0 < len(twice) < len(drawn)  # none where the first mend covers the bug
    async with backend.create(with_tools(small_world.spec, CONFIG.window_lines)) as sandbox:
        await sandbox.write("long.py", mutant.apply(LONG).encode())
        for exchange in twice[0].exchanges[1:]:
            seen = await act(sandbox, exchange.response, CONFIG)
            assert exchange.observation in (seen.text, None)
        assert (await sandbox.read("long.py")).decode() == LONG
