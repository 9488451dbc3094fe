"""Recipes: one TOML file ↔ one checked `Recipe`.

    recipe = load_recipe(Path("recipes/quickstart.toml"), ["run.seed=7", "stages.rl-1.lr=1e-4"])

A relative path in a recipe is relative to the recipe's own file; on the command line, to the current directory. A
checkpoint that is no folder there is taken for a hub id. Every complaint is a `RecipeError` that names the file (or the
`--set`), the full dotted key (a stage by its name: `stages.rl-1.lr`) and, for an unknown key, the nearest known one.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from turnwise.errors import RecipeError
from turnwise.files import write_text_whole
from turnwise.pipeline.recipe import BASE, OPERATIONAL_KEYS, Recipe, Refresh, RftStage, RlStage, SandboxTable, flat
from turnwise.tasks.verdicts import NO_GATE

__all__ = [
    "Recipe",
    "RftStage",
    "RlStage",
    "claim_run_folder",
    "differences",
    "dump_recipe",
    "evaluation_recipe",
    "load_recipe",
    "parse_recipe",
    "sandbox_settings",
]

_PATH_KEYS = (("model", "checkpoint"), ("tasks", "path"), ("tasks", "repos"), ("tasks", "gate"))
_NAMES = {"path": "frozen", "gate": NO_GATE}  # what such a key may hold that is no path
_TABLES: dict[str, type[BaseModel]] = {
    name: field.annotation
    for name, field in Recipe.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}
_WHY_NOT = {
    ("rft", "clip_low"): "rejection fine-tuning is plain log-likelihood; nothing is clipped",
    ("rft", "clip_high"): "rejection fine-tuning is plain log-likelihood; nothing is clipped",
    ("rft", "group_size"): "rejection fine-tuning has no groups; `runs` says how often a task is tried",
    ("rft", "iterations"): "rejection fine-tuning collects once and trains one epoch",
    ("rft", "problems_per_iteration"): "rejection fine-tuning collects on every training task",
    ("rft", "length_threshold"): "rejection fine-tuning keeps what is resolved, however long",
    ("rft", "refresh"): "the refresh goes by the success rates of earlier RL stages",
    ("rl", "demonstration"): "only the base checkpoint collects with a demonstration (PAPER.md, Agent)",
    ("rl", "runs"): "`group_size` says how often an RL stage tries a problem",
    ("rl", "schedule"): "an RL stage keeps its learning rate after the warm-up (PAPER.md sec 4.3)",
}


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and lay `key=value` overrides over it. Raises RecipeError, naming the file and the key."""
    return parse_recipe(_read(path), overrides, source=str(path), base=path.parent)


def evaluation_recipe(
    path: Path | None,
    name: str,
    model: str,
    evaluation: Mapping[str, Any],
    overrides: Sequence[str],
    chat: Mapping[str, Any] | None = None,
) -> Recipe:
    """A recipe that only evaluates `model`: the scaffold's tables of the recipe at `path`, and no stages.

    With `chat` (keys of `[policy.chat]`), or where the recipe at `path` has such a table, the model is the endpoint's;
    what the recipe says of another policy and of its responses' length is then left out. Else it is a checkpoint.
    """
    raw = {} if path is None else _read(path)
    kept: dict[str, Any] = {table: raw[table] for table in ("agent", "sandbox", "policy", "tasks") if table in raw}
    if isinstance(kept.get("tasks"), dict):  # the gate is asked before training alone
        kept["tasks"] = {key: value for key, value in kept["tasks"].items() if key != "gate"}
    kept |= {"run": {"name": name}, "evaluation": {"points": [BASE], **evaluation}}
    policy: dict[str, Any] = kept.get("policy", {})
    if chat is None and policy.get("backend") != "chat":
        kept["model"] = {"checkpoint": _resolved(model, Path.cwd(), "checkpoint")}
    else:
        policy = policy if policy.get("backend") == "chat" else {"backend": "chat"}
        kept["policy"] = policy | {"chat": {**policy.get("chat", {}), **(chat or {})}}
        kept["model"] = {"name": model}
        kept["agent"] = {key: value for key, value in raw.get("agent", {}).items() if key != "max_response_tokens"}
    source, base = ("turnwise eval", Path()) if path is None else (str(path), path.parent)
    return parse_recipe(kept, overrides, source=source, base=base)


def sandbox_settings(path: Path | None, overrides: Sequence[str]) -> SandboxTable:
    """The `[sandbox]` table of the recipe at `path` (None: the defaults) with `sandbox.key=value` laid over it."""
    raw: dict[str, Any] = {"sandbox": {} if path is None else _read(path).get("sandbox", {})}
    overridden = [_override(raw, text) for text in overrides]
    stray = [key for key in overridden if not key.startswith("sandbox.")]
    if stray:
        raise RecipeError(f"--set: {stray[0]}: has no effect here; only keys of [sandbox] have")
    try:
        return SandboxTable.model_validate(raw["sandbox"])
    except ValidationError as error:
        told = [{**detail, "loc": ("sandbox", *detail["loc"])} for detail in error.errors()]
        raise RecipeError("\n".join(_complaints(told, raw, str(path or "turnwise"), overridden))) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise RecipeError(f"{path}: no such recipe file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from error


def parse_recipe(raw: dict[str, Any], overrides: Sequence[str] = (), *, source: str, base: Path) -> Recipe:
    """Check a recipe given as nested dicts; `source` names it in complaints, its relative paths start at `base`."""
    _resolve_paths(raw, base)
    overridden = [_override(raw, text) for text in overrides]
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError("\n".join(_complaints(error.errors(), raw, source, overridden))) from None


def dump_recipe(recipe: Recipe, folder: Path) -> str:
    """The effective recipe as TOML: every default spelled out, paths relative to `folder` (a run can be moved)."""
    raw = recipe.model_dump(mode="json", exclude_none=True)
    for table, key in _PATH_KEYS:
        value = raw[table].get(key)
        if value is not None and Path(value).is_absolute():
            raw[table][key] = os.path.relpath(value, folder.resolve())
    if not recipe.stages:
        raw.pop("trainer")
    if recipe.policy.backend == "chat":
        raw["agent"].pop("max_response_tokens")
    return tomli_w.dumps(raw)


def claim_run_folder(recipe: Recipe, run_dir: Path) -> None:
    """Lay the effective recipe into the run folder, made if needed; RecipeError when another recipe's run is there."""
    path = run_dir / "recipe.toml"
    if path.is_file():
        changed = differences(load_recipe(path), recipe)
        if changed:
            listed = "".join(f"\n  {line}" for line in changed)
            raise RecipeError(
                f"{run_dir} holds a run of another recipe, so it cannot go on with this one:{listed}\n"
                "give this recipe a folder of its own (--run-dir)"
            )
    write_text_whole(path, dump_recipe(recipe, run_dir))


def differences(old: Recipe, new: Recipe) -> list[str]:
    """One line per key in which two recipes would give different runs: `stages.rl-1.lr: 0.0001 → 0.0002`."""
    before, after = flat(old), flat(new)
    changed = [key for key in {**before, **after} if before.get(key) != after.get(key) and key not in OPERATIONAL_KEYS]
    return [f"{key}: {before.get(key, 'absent')!r} → {after.get(key, 'absent')!r}" for key in changed]


def _resolve_paths(raw: dict[str, Any], base: Path) -> None:
    for table, key in _PATH_KEYS:
        value = raw.get(table, {}).get(key) if isinstance(raw.get(table), dict) else None
        if isinstance(value, str):
            raw[table][key] = _resolved(value, base, key)


def _resolved(value: str, base: Path, key: str) -> str:
    if value == _NAMES.get(key):
        return value
    hub = key == "checkpoint"
    path = (base / Path(value).expanduser()).absolute()
    looks_like_hub_id = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", value) is not None
    return value if hub and looks_like_hub_id and not path.exists() else os.path.normpath(path)


def _override(raw: dict[str, Any], text: str) -> str:
    """Lay one `dotted.key=value` over the raw recipe and return its dotted key."""
    key, equals, written = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise RecipeError(f"--set {text}: write it as key=value, for example stages.rl-1.lr=1e-4")
    value = _toml_value(written.strip())
    *parents, leaf = _split(key)
    node: Any = raw
    for depth, part in enumerate(parents):
        node = _descend(node, part, f"--set {text}", ".".join(parents[: depth + 1]))
    if not isinstance(node, dict):
        raise RecipeError(f"--set {text}: {'.'.join(parents)} is a value, not a table")
    is_path = (*parents, leaf) in _PATH_KEYS and isinstance(value, str)
    node[leaf] = _resolved(value, Path.cwd(), leaf) if is_path else value
    return key


def _split(key: str) -> list[str]:
    """`stages.rl-1.lr` → its parts; a stage's name may be quoted when it holds a dot."""
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|([^."]+)', key)]


def _toml_value(written: str) -> Any:
    try:
        return tomllib.loads(f"value = {written}")["value"]
    except tomllib.TOMLDecodeError:
        return written


def _descend(node: Any, part: str, where: str, dotted: str) -> Any:
    if isinstance(node, list):
        named = {stage.get("name"): stage for stage in node if isinstance(stage, dict)}
        if part not in named:
            raise RecipeError(f"{where}: no stage is called {part!r}{_nearest(part, [str(name) for name in named])}")
        return named[part]
    if not isinstance(node, dict):
        raise RecipeError(f"{where}: {dotted} is below a value, not a table")
    return node.setdefault(part, {})


def _complaints(
    details: Iterable[Mapping[str, Any]], raw: dict[str, Any], source: str, overridden: Sequence[str]
) -> Iterator[str]:
    for detail in details:
        location = _without_tag(detail["loc"])
        if detail["type"] == "value_error" and not location:
            lines = str(detail["ctx"]["error"]).splitlines()
        elif detail["type"] == "extra_forbidden":
            lines = [f"{_dotted(location, raw)}: {_why_unknown(location, raw)}"]
        else:
            lines = [f"{_dotted(location, raw)}: {_plain(detail)}"]
        for line in lines:
            yield f"{_origin(line.split(': ')[0], source, overridden)}: {line}"


def _origin(key: str, source: str, overridden: Sequence[str]) -> str:
    """Where the key was written: on the command line when it, or something below it, was set there."""
    return "--set" if any(other == key or other.startswith(f"{key}.") for other in overridden) else source


def _without_tag(location: Sequence[str | int]) -> list[str | int]:
    """Pydantic puts the stage's kind into the location of what is wrong in it: ('stages', 1, 'rl', 'lr')."""
    is_stage = len(location) > 2 and location[0] == "stages" and location[2] in ("rft", "rl")
    return [*location[:2], *location[3:]] if is_stage else list(location)


def _plain(detail: Any) -> str:
    if detail["type"] == "missing":
        return "is missing"
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return 'needs kind = "rft" or kind = "rl"'
    message = str(detail["msg"])
    return f"{message[0].lower()}{message[1:]} (it is {detail['input']!r})"


def _dotted(location: Sequence[str | int], raw: dict[str, Any]) -> str:
    """Pydantic's location with a stage's index replaced by its name."""
    parts = [str(part) for part in location]
    if len(location) > 1 and location[0] == "stages" and isinstance(location[1], int):
        stage = raw["stages"][location[1]]
        parts[1] = str(stage.get("name", location[1])) if isinstance(stage, dict) else parts[1]
    return ".".join(parts)


def _why_unknown(location: Sequence[str | int], raw: dict[str, Any]) -> str:
    key = str(location[-1])
    table = _table(location, raw)
    kind = raw["stages"][location[1]]["kind"] if location[0] == "stages" and isinstance(location[1], int) else ""
    if (kind, key) in _WHY_NOT:
        return f"has no effect in a stage of kind {kind!r}: {_WHY_NOT[kind, key]}"
    elsewhere = [name for name in _TABLES if name != str(location[0]) and key in _TABLES[name].model_fields]
    if elsewhere and key not in table.model_fields:
        return f"unknown key; did you mean {elsewhere[0]}.{key}?"
    return f"unknown key{_nearest(key, list(table.model_fields))}"


def _table(location: Sequence[str | int], raw: dict[str, Any]) -> type[BaseModel]:
    """The model of the table that holds the key at `location`."""
    if location[0] == "stages" and isinstance(location[1], int):
        if "refresh" in location[2:-1]:
            return Refresh
        return RftStage if raw["stages"][location[1]].get("kind") == "rft" else RlStage
    table: type[BaseModel] = Recipe
    for part in location[:-1]:
        table = _below(table, str(part)) or table
    return table


def _below(table: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The table that a key of this table holds, optional or not; None where it holds a value."""
    annotation = table.model_fields[key].annotation if key in table.model_fields else None
    candidates = [annotation, *get_args(annotation)]
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), None)


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(sorted(known))}"
