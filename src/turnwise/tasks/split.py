"""Train and held-out, so that what is learnt from one bug never gives another one's answer away."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from turnwise.types import Task

TRAIN, HELD_OUT = "train", "heldout"

HeldOutBy = Literal["function", "file", "package"]


def assign_splits(tasks: Sequence[Task], held_out: float, by: HeldOutBy = "function", seed: int = 0) -> list[Task]:
    """The tasks with `meta["split"]` set anew, about the share `held_out` of them to "heldout".

    Bugs of one function, file or package (`by`) go to the same side together. So do, in different functions of one
    file, bugs whose right lines or whose wrong lines read the same. A function is the outermost one or method that
    holds the bug. The side follows from these names and texts and `seed` alone: making more tasks later moves none of
    those made before, unless it joins two such families, or one side would have been empty. Neither side of a package
    is empty for a share between 0 and 1 if it has two families; with `by` package that holds for all packages together.
    """
    family = _families(tasks, by)
    shares: dict[str, dict[str, float]] = defaultdict(dict)
    for task, root in zip(tasks, family, strict=True):
        shares["" if by == "package" else task.sdist.package][root] = _share(seed, root)
    sides = {root: side for group in shares.values() for root, side in _sides(group, held_out)}
    return [
        replace(task, meta={**task.meta, "split": HELD_OUT if sides[root] else TRAIN})
        for task, root in zip(tasks, family, strict=True)
    ]


def _sides(shares: dict[str, float], held_out: float) -> Iterator[tuple[str, bool]]:
    """Each family with whether it is held out."""
    both = 0 < held_out < 1 and len(shares) > 1
    ordered = sorted(shares, key=shares.__getitem__)
    for place, root in enumerate(ordered):
        if both and place in (0, len(ordered) - 1):
            yield root, place == 0
        else:
            yield root, shares[root] < held_out


def _families(tasks: Sequence[Task], by: HeldOutBy) -> list[str]:
    """For each task the least key of all bugs that it is joined to, directly or through others."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    keys = [_keys(task, by) for task in tasks]
    for first, *others in keys:
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    return [root(first) for first, *_ in keys]


def _keys(task: Task, by: HeldOutBy) -> list[str]:
    """What the task shares with every other of its family."""
    if by == "package":
        return [task.sdist.package]
    file = f"{task.sdist.package}\0{task.meta['file']}"
    if by == "file":
        return [file]
    right, wrong = (" ".join(str(task.meta[name]).split()) for name in ("original", "mutated"))
    # Removed lines leave nothing behind that could be the same as elsewhere.
    function = task.meta["outermost_function"]
    return [f"{file}\0function\0{function}", f"{file}\0right\0{right}", f"{file}\0wrong\0{wrong or right}"]


def _share(seed: int, key: str) -> float:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{key}".encode()).digest()[:4], "big") / 2**32
