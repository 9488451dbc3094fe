import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

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
    base, *later = await load().main(iterations=3)
    assert 0 < base < 0.5
    assert max(later) > base + 0.15  # 40 episodes each: the standard error of a share is 0.08


def test_a_newcomer_reads_it_in_one_sitting() -> None:
    lines = EXAMPLE.read_text().splitlines()
    assert len(lines) <= 300
    imported = {line.split()[1] for line in lines if line.startswith("from turnwise")}
    rooms = {".".join(module.split(".")[:2]) for module in imported}
    assert rooms == {f"turnwise.{room}" for room in ("agent", "algorithms", "policy", "sandbox", "types")}
