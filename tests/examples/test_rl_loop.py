import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "rl_loop.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rl_loop", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(600)
async def test_the_example_learns() -> None:
    base, *_, before, last = await load().main(iterations=4)
    assert 0 < base < 0.5
    assert (before + last) / 2 > base + 0.2  # 80 episodes: their standard error is 0.06


def test_a_newcomer_reads_it_in_one_sitting() -> None:
    lines = EXAMPLE.read_text().splitlines()
    assert len(lines) <= 300
    imported = {line.split()[1] for line in lines if line.startswith("from turnwise")}
    rooms = {".".join(module.split(".")[:2]) for module in imported}
    assert rooms == {f"turnwise.{room}" for room in ("agent", "algorithms", "policy", "sandbox", "types")}
