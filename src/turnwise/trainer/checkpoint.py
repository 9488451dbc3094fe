"""Checkpoints in Hugging Face format with the optimizer's state beside them, there whole or not at all."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import AutoTokenizer

from turnwise.errors import CheckpointError, StoreError
from turnwise.trainer.model import no_progress_bars

# Safetensors inside; the name ends otherwise, since engines load every *.safetensors of a folder as weights.
TRAINING_STATE = "turnwise_trainer.state"
OptimizerState = dict[int, dict[str, torch.Tensor]]

_NOT_COPIED = (
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".msgpack",
    ".gguf",
    ".onnx",
    ".index.json",
    ".state",
)


def save_checkpoint(
    directory: Path, network: Any, step: int, optimizer: OptimizerState, source: str | Path | None
) -> None:
    """Write `network`, the other files of `source` (tokenizer, template) and what `Trainer.load` needs.

    Everything is written beside it and renamed into place, so that a kill at any instant leaves the old checkpoint or
    the new one. Raises StoreError when the disk refuses; what was there before is untouched.
    """
    directory = directory.absolute()
    draft = directory.with_name(f".{directory.name}.tmp-{os.getpid()}")
    try:
        settle(directory)
        for stale in directory.parent.glob(f".{directory.name}.tmp-*"):
            shutil.rmtree(stale)
        draft.mkdir(parents=True)
        with no_progress_bars():
            network.save_pretrained(draft)
        _copy_companions(source, draft)
        _save_state(step, optimizer, draft / TRAINING_STATE)
        _flush(draft)
        _swap(draft, directory)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise StoreError(
            f'the checkpoint "{directory}" could not be written: {error}. Earlier checkpoints are untouched: '
            "make room and start the same command again"
        ) from error


def load_training_state(directory: Path) -> tuple[int, OptimizerState]:
    """Return (steps taken, optimizer state by parameter); CheckpointError when `directory` is no such checkpoint."""
    settle(directory.absolute())
    path = directory / TRAINING_STATE
    if not path.is_file():
        raise CheckpointError(
            f'"{directory}" holds no {TRAINING_STATE}, so training cannot go on from it; '
            "to start anew from its weights, give it as the model"
        )
    try:
        with safe_open(path, framework="pt") as file:
            step = int(file.metadata()["step"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f'"{path}" cannot be read: {error}') from error
    optimizer: OptimizerState = {}
    for name, tensor in tensors.items():
        index, key = name.split(".")
        optimizer.setdefault(int(index), {})[key] = tensor
    return step, optimizer


def settle(directory: Path) -> None:
    """Bring back the old checkpoint if a kill fell between the two renames that put a new one in its place."""
    replaced = _replaced(directory)
    if not replaced.exists():
        return
    if directory.exists():
        shutil.rmtree(replaced)
    else:
        replaced.rename(directory)


def _replaced(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.old")


def _swap(draft: Path, directory: Path) -> None:
    replaced = _replaced(directory)
    if directory.exists():
        directory.rename(replaced)
    draft.rename(directory)
    _sync(directory.parent)
    if replaced.exists():
        shutil.rmtree(replaced)


def _copy_companions(source: str | Path | None, draft: Path) -> None:
    """Carry along, byte by byte, what belongs to the model but is no weight: tokenizer, chat template, licence."""
    if source is None:
        return
    if not Path(source).is_dir():  # a model of the hub
        AutoTokenizer.from_pretrained(str(source)).save_pretrained(draft)
        return
    for path in sorted(Path(source).iterdir()):
        if path.is_file() and not path.name.endswith(_NOT_COPIED) and not (draft / path.name).exists():
            shutil.copy2(path, draft / path.name)


def _save_state(step: int, optimizer: OptimizerState, path: Path) -> None:
    tensors = {f"{index}.{key}": value for index, moments in optimizer.items() for key, value in moments.items()}
    save_file(tensors, path, metadata={"step": str(step)})


def _flush(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_file():
            _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
