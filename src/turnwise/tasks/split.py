"""Train and held-out, so that what is learnt from one bug never gives another one's answer away."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from turnwise.types import Task

TRAIN, HELD_OUT = "train", "heldout"


def assign_splits(tasks: Sequence[Task], held_out: float) -> list[Task]:
    """The tasks with `meta["split"]` set, about the share `held_out` of them to "heldout".

    Bugs of one file whose right lines or whose wrong lines read the same go to the same side together. The side follows
    from their text alone: making more tasks later moves none of those made before, unless it joins two such families
    or one side would have been empty, which with two families or more neither is for a share between 0 and 1.
    """
    family = _families(tasks)
    shares = {root: _share(root) for root in family}
    sides = {root: share < held_out for root, share in shares.items()}
    if 0 < held_out < 1 and len(shares) > 1:
        sides[min(shares, key=shares.__getitem__)] = True
        sides[max(shares, key=shares.__getitem__)] = False
    return [
        replace(task, meta={"split": HELD_OUT if sides[root] else TRAIN, **task.meta})
        for task, root in zip(tasks, family, strict=True)
    ]


def _families(tasks: Sequence[Task]) -> list[str]:
    """For each task the least key of all bugs that it is joined to, directly or through others."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    keys = [_keys(task) for task in tasks]
    for right, wrong in keys:
        low, high = sorted((root(right), root(wrong)))
        parent[high] = low
    return [root(right) for right, _ in keys]


def _keys(task: Task) -> tuple[str, str]:
    place = f"{task.sdist.package}\0{task.meta['file']}\0"
    words = [" ".join(str(task.meta[name]).split()) for name in ("original", "mutated")]
    # Removed lines leave nothing behind that could be the same as elsewhere.
    return f"{place}right\0{words[0]}", f"{place}wrong\0{words[1] or words[0]}"


def _share(key: str) -> float:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") / 2**32
