"""The examples in docstrings are right."""

import doctest
import importlib
from pathlib import Path

import turnwise

ROOT = Path(turnwise.__file__).parent
SCRIPTS = ("rewards/plugin/", "agent/tools/bin/", "cli/__main__.py")  # run on their own, never imported


def test_the_examples_in_docstrings_hold():
    failed = {}
    for path in sorted(ROOT.rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        if not place.startswith(SCRIPTS):
            name = ".".join(("turnwise", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
            found = doctest.testmod(importlib.import_module(name))
            failed |= {name: found.failed} if found.failed else {}
    assert failed == {}
