"""A run's checkpoints on disk: `checkpoints/<stage>/<iteration>/`, each one whole or absent."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PROVENANCE = "turnwise.json"
_PART = ".part"

Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """One finished iteration: its weights, and the metrics of the optimizer steps that led to them.

    >>> Checkpoint("rl-1", 3, Path("runs/demo/checkpoints/rl-1/0003"), ()).path.name
    '0003'
    """

    stage: str
    iteration: int
    path: Path
    steps: tuple[Metrics, ...]


class Checkpoints:
    """Saves, finds and prunes. `keep` is how many of a stage's last iterations stay; a stage's end always does."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self._folder = folder
        self._keep = keep

    def latest(self, stage: str) -> Checkpoint | None:
        """The newest whole checkpoint of a stage."""
        found = self._finished(stage)
        return self._read(stage, found[-1]) if found else None

    def save(self, stage: str, iteration: int, steps: Sequence[Metrics], write: Callable[[Path], None]) -> Checkpoint:
        """Let `write` fill a folder, lay the steps' metrics beside it, and give it its final name in one rename."""
        final = self._folder / stage / f"{iteration:04d}"
        part = final.with_name(final.name + _PART)
        self._clear(stage)
        part.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        (part / _PROVENANCE).write_text(
            json.dumps({"stage": stage, "iteration": iteration, "steps": list(steps)}), encoding="utf-8"
        )
        part.rename(final)
        self._prune(stage)
        return Checkpoint(stage, iteration, final, tuple(steps))

    def _finished(self, stage: str) -> list[Path]:
        return sorted(
            path.parent for path in (self._folder / stage).glob(f"*/{_PROVENANCE}") if path.parent.suffix == ""
        )

    def _read(self, stage: str, path: Path) -> Checkpoint:
        stored = json.loads((path / _PROVENANCE).read_text(encoding="utf-8"))
        return Checkpoint(stage, stored["iteration"], path, tuple(stored["steps"]))

    def _clear(self, stage: str) -> None:
        for leftover in (self._folder / stage).glob(f"*{_PART}*"):
            shutil.rmtree(leftover)

    def _prune(self, stage: str) -> None:
        for old in self._finished(stage)[: -self._keep]:
            shutil.rmtree(old)
