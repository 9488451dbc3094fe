"""The house of docs/design.md, held over the syntax tree: who may import whom, and how long things get."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "turnwise"
FLOOR = {
    "types": 0,
    "outcomes": 0,
    "errors": 0,
    "usage": 0,
    "together": 0,
    "files": 0,
    "tasks": 1,
    "sandbox": 1,
    "policy": 1,
    "algorithms": 1,
    "store": 1,
    "agent": 2,
    "rewards": 2,
    "rollout": 3,
    "trainer": 3,
    "pipeline": 4,
    "evaluation": 4,
    "report": 4,
    "config": 5,
    "cli": 5,
    "__main__": 5,
    "__init__": 5,
}
ARROWS = {("pipeline", "evaluation"), ("report", "evaluation"), ("cli", "config"), ("__main__", "cli")}
FILE_LINES = 400
FUNCTION_LINES = 80


def sources(package: Path) -> list[Path]:
    return sorted(package.rglob("*.py"))


def room_of(path: Path, package: Path) -> str:
    return path.relative_to(package).parts[0].removesuffix(".py")


def imported_modules(path: Path, package: Path) -> Iterator[str]:
    """Absolute dotted names of everything the file imports, at the top or inside a function."""
    parents = [package.name, *path.relative_to(package).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_allowed(here: str, there: str) -> bool:
    same_room, ground_floor = here == there, FLOOR[here] == FLOOR[there] == 0
    return same_room or ground_floor or FLOOR[there] < FLOOR[here] or (here, there) in ARROWS


def strays(package: Path) -> list[str]:
    """Every import that climbs or crosses where no arrow is drawn, as "path: here (floor) imports there (floor)"."""
    found = []
    for path in sources(package):
        here = room_of(path, package)
        for module in imported_modules(path, package):
            parts = module.split(".")
            there = parts[1] if parts[0] == package.name and len(parts) > 1 else None
            if there in FLOOR and not is_allowed(here, there):
                found.append(f"{path.name}: {here} ({FLOOR[here]}) imports {there} ({FLOOR[there]})")
    return found


def test_imports_only_go_down_or_along_an_arrow():
    assert strays(PACKAGE) == []


def test_every_room_stands_on_a_floor():
    assert {room_of(path, PACKAGE) for path in sources(PACKAGE)} - FLOOR.keys() == set()


@pytest.mark.parametrize(
    ("room", "statement"),
    [
        ("tasks", "import turnwise.rollout"),
        ("types", "import turnwise.store"),
        ("sandbox", "from turnwise.tasks import read_tasks"),
        ("rollout", "from turnwise.trainer import Trainer"),
        ("trainer", "from turnwise import rollout"),
        ("agent", "from ..rewards import verify"),
        ("pipeline", "from turnwise.report import write_report"),
        ("store", "def read():\n    from turnwise.config import Recipe"),
    ],
)
def test_a_stray_is_found(tmp_path, room, statement):
    package = tmp_path / "turnwise"
    (package / room).mkdir(parents=True)
    (package / room / "room.py").write_text(f"{statement}\nfrom turnwise.types import Task\n")
    assert len(strays(package)) == 1


def test_files_and_functions_stay_short():
    long = []
    for path in sources(PACKAGE):
        text, name = path.read_text(), str(path.relative_to(PACKAGE))
        functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        long += [f"{name}: {f.name}" for f in functions if (f.end_lineno or 0) - f.lineno >= FUNCTION_LINES]
        long += [name] if text.count("\n") > FILE_LINES else []
    assert long == []


def test_the_algorithm_fits_in_one_readable_file():
    assert (PACKAGE.parent.parent / "examples" / "rl_loop.py").read_text().count("\n") <= 300


def leaves_encoding_to_the_locale(call: ast.Call) -> bool:
    """Whether a call reads or writes text and names no encoding."""
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if "encoding" in keywords or "fileobj" in keywords:  # the latter is tarfile's
        return False
    if name in ("read_text", "write_text"):
        return len(call.args) < (1 if name == "read_text" else 2)
    if name in ("open", "fdopen"):
        of_builtin = isinstance(call.func, ast.Name) or name == "fdopen"
        mode = keywords.get("mode", call.args[int(of_builtin)] if len(call.args) > of_builtin else None)
        is_file = (
            of_builtin or mode is None or (isinstance(mode, ast.Constant) and set(str(mode.value)) <= set("rwax+bt"))
        )
        return is_file and not (isinstance(mode, ast.Constant) and "b" in str(mode.value))
    return any(
        isinstance(keywords.get(key), ast.Constant) and keywords[key].value for key in ("text", "universal_newlines")
    )


@pytest.mark.parametrize(
    ("call", "leaves"),
    [
        ("path.read_text()", True),
        ("path.read_text('utf-8')", False),
        ("path.write_text(text, encoding='ascii')", False),
        ("(root / name).write_text(text)", True),
        ("open(path)", True),
        ("open(path, 'rb')", False),
        ("path.open('a+')", True),
        ("path.open('wb')", False),
        ("Journal.open(path, hash)", False),
        ("subprocess.run(command, text=True)", True),
        ("subprocess.run(command, text=True, encoding='utf-8')", False),
        ("subprocess.run(command)", False),
    ],
)
def test_calls_that_leave_the_encoding_to_the_locale_are_known(call, leaves):
    assert leaves_encoding_to_the_locale(ast.parse(call).body[0].value) is leaves


@pytest.mark.parametrize("folder", ["src", "scripts", "benchmarks", "examples"])
def test_all_text_is_read_and_written_in_a_named_encoding(folder):
    found = [
        f"{path}:{node.lineno}: {ast.unparse(node)}"
        for path in sources(PACKAGE.parents[1] / folder)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and leaves_encoding_to_the_locale(node)
    ]
    assert found == []
