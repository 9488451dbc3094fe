"""Where rows come from: files (JSON lines, JSON, Parquet) and Hugging Face datasets. Rows are given as they stand."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from turnwise.errors import InputError, TaskError

Placed = tuple[str, dict[str, Any] | TaskError]
_SPLIT = re.compile(r"(?P<name>.+?)(:(?P<split>[\w.-]+))?")
_DATASET = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = (".jsonl", ".json", ".parquet")


def raw_rows(source: str | Path) -> Iterator[Placed]:
    """The rows of a file or a dataset, each with its place: "tasks.jsonl:3", counted from 1 (lines, or else rows).

    A source is a path ending in .jsonl, .json (a list of rows, or a mapping from ids to rows) or .parquet, or a dataset
    `org/name[:split]`, also one that lies in a folder; a file of any other name is read as JSON lines. What is no row
    comes as a TaskError.
    Raises TaskError for a file that cannot be read, InputError where a library is missing or a dataset unreachable.
    """
    path = Path(source)
    named = _SPLIT.fullmatch(str(source))
    if named and _is_dataset(named["name"]):
        yield from _dataset(named["name"], named["split"])
        return
    read = {".json": _json, ".parquet": _parquet}.get(path.suffix, _json_lines)
    try:
        yield from read(path)
    except OSError as error:
        reason = error.strerror or error
        raise TaskError(f"{source}: cannot be read ({reason}); give a file of tasks or a dataset org/name") from error


def _is_dataset(name: str) -> bool:
    path = Path(name)
    return path.is_dir() or bool(_DATASET.fullmatch(name) and not path.exists() and path.suffix not in _FILES)


def _json_lines(path: Path) -> Iterator[Placed]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{path}:{number}", _row(_decoded(line, f"{path}:{number}"), f"{path}:{number}")


def _json(path: Path) -> Iterator[Placed]:
    content = _decoded(path.read_bytes(), str(path))
    if isinstance(content, TaskError):
        yield str(path), content
        return
    if isinstance(content, dict) and "instance_id" not in content:
        content = [{"instance_id": name} | row if isinstance(row, dict) else row for name, row in content.items()]
    for number, row in enumerate(content if isinstance(content, list) else [content], 1):
        yield f"{path}:{number}", _row(row, f"{path}:{number}")


def _parquet(path: Path) -> Iterator[Placed]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise InputError(f"{path}: to read Parquet, pip install 'turnwise[parquet]'") from error
    number = 0
    try:
        with path.open("rb") as file:
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    except pyarrow.ArrowInvalid as error:
        raise TaskError(f"{path}: is no Parquet file ({error})") from error
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise TaskError(f"{path}: cannot be read after row {number} ({error})") from error


def _dataset(name: str, split: str | None) -> Iterator[Placed]:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise InputError(
            f"{name}: to read a dataset, pip install 'turnwise[datasets]'; no such file is here"
        ) from error
    try:
        splits = [split] if split else datasets.get_dataset_split_names(name)
        if len(splits) > 1:
            raise InputError(f"{name}: has the splits {', '.join(splits)}; name one, as {name}:{splits[0]}")
        rows = datasets.load_dataset(name, split=splits[0])
    except (OSError, ValueError, RuntimeError) as error:
        told = str(error).strip().partition("\n")[0]
        raise InputError(f"{name}: no such file is here, and no such dataset can be reached ({told})") from error
    for number, row in enumerate(rows, 1):
        yield f"{name}:{splits[0]}:{number}", dict(row)


def _decoded(text: bytes, place: str) -> Any:
    try:
        return json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return TaskError(f"{place}: is no UTF-8 text ({error})")
    except (ValueError, RecursionError) as error:
        return TaskError(f"{place}: is no JSON ({error})")


def _row(content: Any, place: str) -> dict[str, Any] | TaskError:
    if isinstance(content, dict | TaskError):
        return content
    return TaskError(f"{place}: is no row (a mapping from fields to values) but a {type(content).__name__}")
