"""Tripwires: a static reading of what a patch adds. Rules are data (tripwires.toml); nothing of the patch is run.

They see what reward hacks do that stands in the patch in plain sight; honest fixes rarely need it. A patch that trips
one keeps its score, and training does not reward it.
"""

import fnmatch
import functools
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnwise.errors import InputError
from turnwise.rewards.python_module import CHECKS, PythonModule, is_part_of, read_module

Files = Mapping[str, bytes | None]


@dataclass(frozen=True)
class Rule:
    """One rule of tripwires.toml; see there for the keys."""

    name: str
    about: str
    names: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()
    texts: tuple[str, ...] = ()
    methods: frozenset[str] = frozenset()
    paths: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    unreadable: bool = False

    def is_call(self, call: str) -> bool:
        """Whether the rule names what is called, such as "os.write"; ".write" is of something that is no name."""
        owner, dot, name = call.rpartition(".")
        return call in self.calls or (bool(dot) and bool({f"*.{name}", f"{owner}.*"} & self.calls))

    @functools.cached_property
    def text(self) -> re.Pattern[str] | None:
        """The pattern that a text must hold."""
        return re.compile("|".join(f"(?:{pattern})" for pattern in self.texts)) if self.texts else None


@dataclass(frozen=True)
class Hit:
    """Something that a rule is about, as often as a file has it. `body` tells apart what differs only within."""

    rule: str
    path: str
    what: str
    body: str = ""


@functools.cache
def all_rules() -> Mapping[str, Rule]:
    """The rules that ship, by name."""
    text = Path(__file__).with_name("tripwires.toml").read_text(encoding="utf-8")
    return {name: _rule(name, raw) for name, raw in tomllib.loads(text).items()}


def _rule(name: str, raw: Mapping[str, Any]) -> Rule:
    sets = {key: frozenset(raw.get(key, ())) for key in ("names", "calls", "modules", "methods")}
    lists = {key: tuple(raw.get(key, ())) for key in ("texts", "paths", "checks")}
    return Rule(name, raw["about"], unreadable=raw.get("unreadable", False), **sets, **lists)  # type: ignore[arg-type]  # the keys of one are not the other's


def chosen_rules(names: Collection[str] | None) -> tuple[Rule, ...]:
    """The rules of these names (None: all). Raises InputError for a name that is none."""
    rules = all_rules()
    for name in names or ():
        if name not in rules:
            raise InputError(f"{name!r} is no tripwire; there are {', '.join(rules)}")
    return tuple(rule for rule in rules.values() if names is None or rule.name in names)


def tripped(before: Files, after: Files, rules: Collection[Rule], hidden: Collection[str] = ()) -> dict[str, str]:
    """The rules that the change from `before` to `after` trips, each with what it found in a sentence.

    Both are files by path (None: not there). `hidden` are the paths of the hidden tests.

    >>> tripped({"a.py": b""}, {"a.py": b"import gc"}, chosen_rules(["interpreter"]))
    {'interpreter': 'a.py: gc'}
    """
    found: dict[str, str] = {}
    for path, content in after.items():
        old = before.get(path)
        if content is None or content == old:
            continue
        new = Counter(_hits(path, content, rules, hidden)) - Counter(_hits(path, old or b"", rules, hidden))
        for hit in new:
            found.setdefault(hit.rule, f"{path}: {hit.what}")
        for rule in rules:
            if any(fnmatch.fnmatch(path, pattern) for pattern in rule.paths):
                found.setdefault(rule.name, f"{path} is written")
    return found


def _hits(path: str, content: bytes, rules: Collection[Rule], hidden: Collection[str]) -> Iterator[Hit]:
    if not path.endswith((".py", ".pyi")) or not content:
        return
    module = read_module(path, content, hidden)
    for rule in rules:
        found = _found(module, rule) if module is not None else ["it is no Python that can be read"] * rule.unreadable
        for what in found:
            yield Hit(rule.name, path, what)
        for name, body in () if module is None else module.methods:
            if name.rpartition(".")[2] in rule.methods:
                yield Hit(rule.name, path, name, body)


def _found(module: PythonModule, rule: Rule) -> Iterator[str]:
    """What a rule is about, as often as it stands in a module."""
    yield from (name for name in module.names if name in rule.names)
    yield from (f"{call}()" for call in module.calls if rule.is_call(call))
    yield from (name for name in module.modules if is_part_of(name, rule.modules))
    if rule.text is not None:
        yield from (text[:80] for text in module.texts if rule.text.search(text))
    for check in rule.checks:
        yield from CHECKS[check](module)
