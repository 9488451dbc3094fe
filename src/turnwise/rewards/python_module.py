"""A Python module read without running it: what it names, calls, imports, says and defines."""

import ast
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from pathlib import PurePosixPath

from turnwise.rewards.sources import decode_source

# Beside the standard library's: what pytest and most test suites import.
_IMPORTED_BY_TESTS = frozenset(
    "pytest _pytest pluggy iniconfig py nose mock hypothesis numpy six attr packaging".split()  # noqa: SIM905
)
_USUAL_ENCODINGS = ("utf-8", "utf-8-sig", "ascii", "iso-8859-1", "iso-8859-15", "latin-1", "cp1252")
# By these a text is the name of something.
_LOOKS_UP = ("getattr", "setattr", "hasattr", "delattr", "attrgetter", "methodcaller", "__getattribute__", "get", "pop",
             "setdefault", "getenv", "import_module", "__import__", "find_spec")  # fmt: skip
_SETS = ("setattr", "delattr", "__setattr__", "__delattr__")
_STARTS = ("Thread", "Timer", "Process", "Popen", "system", "start_new_thread")
_SYS_MODULES = re.compile(r"(sys\.)?modules\.(pop|update|setdefault|clear|values|items)")


class PythonModule:
    """A syntax tree with what tripwires ask of it. `hidden` are the paths of the hidden tests."""

    def __init__(self, path: str, tree: ast.Module, encoding: str, hidden: Collection[str]) -> None:
        self.path, self.tree, self.encoding, self.hidden = path, tree, encoding, hidden
        self.nodes = list(ast.walk(tree))
        self._looked_up = list(_looked_up(self.nodes))

    @cached_property
    def names(self) -> list[str]:
        """Identifiers, attributes and imported names, and texts by which something is looked up."""
        return [*_names(self.nodes), *self._looked_up]

    @cached_property
    def calls(self) -> list[str]:
        """What is called, as `dotted` has it."""
        return [dotted(node.func) for node in self.nodes if isinstance(node, ast.Call)]

    @cached_property
    def modules(self) -> list[str]:
        """Imported modules, with what is imported from them, and texts by which something is looked up."""
        return [*_imported_modules(self.nodes), *self._looked_up]

    @cached_property
    def foreign(self) -> set[str]:
        """The names that imports bind, but for those of the module's own package that have nothing to do with tests."""
        return {name for name, module in _bound_names(self.nodes) if "test" in module or not self._is_own(module)}

    def _is_own(self, module: str) -> bool:
        package = _import_path(self.path)[0]
        return module.startswith(".") or module.split(".")[0] == package

    @cached_property
    def texts(self) -> list[str]:
        """Texts, docstrings aside."""
        docstrings = {id(node.value) for node in self.nodes if isinstance(node, ast.Expr)}
        constants = [node for node in self.nodes if isinstance(node, ast.Constant) and id(node) not in docstrings]
        return [node.value for node in constants if isinstance(node.value, str)]

    @cached_property
    def methods(self) -> list[tuple[str, str]]:
        """What functions and classes define, by its dotted name, with a digest of how."""
        return list(_definitions(self.tree))


def read_module(path: str, content: bytes, hidden: Collection[str] = ()) -> PythonModule | None:
    """The module in a file; None where that is no Python of this interpreter's version."""
    try:
        source, encoding = decode_source(content)
        return PythonModule(path, ast.parse(source), encoding, hidden)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def is_part_of(module: str, modules: Collection[str]) -> bool:
    """Whether a dotted name is one of these modules, or lies in one."""
    parts = module.split(".")
    return any(".".join(parts[: end + 1]) in modules for end in range(len(parts)))


def dotted(node: ast.AST) -> str:
    """A name with its attributes; of anything else only the attributes.

    >>> dotted(ast.parse("a.b().c", mode="eval").body)
    '.c'
    """
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _last_name(node: ast.AST) -> str:
    """The last name of what a node calls; empty where it is no call."""
    return dotted(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""


def _looked_up(nodes: Collection[ast.AST]) -> Iterator[str]:
    for node in nodes:
        keys: list[ast.expr] = []
        if isinstance(node, ast.Call) and _last_name(node) in _LOOKS_UP:
            keys = node.args
        elif isinstance(node, ast.Subscript):
            keys = [node.slice]
        yield from (key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str))


def _names(nodes: Collection[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


def _imported_modules(nodes: Collection[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _bound_names(nodes: Collection[ast.AST]) -> Iterator[tuple[str, str]]:
    """Each name that an import binds, with what it stands for; that begins with a dot where the import is relative."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name.split(".")[0], alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            yield from ((alias.asname or alias.name, f"{source}.{alias.name}") for alias in node.names)


def _import_path(path: str) -> tuple[str, ...]:
    """The parts of the name by which a file is imported, its folder of sources aside.

    >>> _import_path("src/calc/units.py")
    ('calc', 'units')
    """
    parts = PurePosixPath(path).with_suffix("").parts
    return parts[1:] if parts[0] in ("src", "lib", "python", "test", "tests") and len(parts) > 1 else parts


def _definitions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, str]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{inside}.{node.name}" if inside else node.name
            if not isinstance(node, ast.ClassDef):
                yield name, _digest(node)
            yield from _definitions(node, name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((f"{inside}.{each.id}", _digest(node)) for each in targets if isinstance(each, ast.Name))
        else:
            yield from _definitions(node, inside)


def _digest(node: ast.AST) -> str:
    return f"{hash(ast.dump(node)) & 0xFFFFFFFF:08x}"


def _stored(nodes: Collection[ast.AST]) -> Iterator[ast.Attribute | ast.Subscript]:
    """Attributes and items that are assigned to, or deleted."""
    for node in nodes:
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node


def writes_into_imports(module: PythonModule) -> Iterator[str]:
    """Attributes of what is foreign are set: `operator.eq = …`, `setattr(operator, …)`, `vars(operator)[…] = …`."""
    for target in _stored(module.nodes):
        owner = dotted(target.value)
        if isinstance(target, ast.Attribute) and owner.split(".")[0] in module.foreign:
            yield f"{owner}.{target.attr} = …"
        if isinstance(target, ast.Subscript) and (owner.endswith("__dict__") or _last_name(target.value) == "vars"):
            yield f"{ast.unparse(target.value)}[…] = …"
    for node in module.nodes:
        owner = dotted(node.args[0]) if isinstance(node, ast.Call) and _last_name(node) in _SETS and node.args else ""
        if owner.split(".")[0] in module.foreign:
            yield f"setattr({owner}, …)"


def writes_sys_modules(module: PythonModule) -> Iterator[str]:
    """`sys.modules[…] = …`, and its methods that change it or list what is there."""
    for target in _stored(module.nodes):
        if isinstance(target, ast.Subscript) and dotted(target.value) in ("sys.modules", "modules"):
            yield "sys.modules[…] = …"
    yield from (f"{call}()" for call in module.calls if _SYS_MODULES.fullmatch(call))


def deceptive_types(module: PythonModule) -> Iterator[str]:
    """`type(name, bases, {…})`: a class whose methods are not read here; `__class__ = …`: an object of another."""
    for node in module.nodes:
        if isinstance(node, ast.Call) and dotted(node.func) == "type" and len(node.args) == 3:
            yield "type(…, …, …)"
    for target in _stored(module.nodes):
        if isinstance(target, ast.Attribute) and target.attr == "__class__":
            yield "__class__ = …"


def computed_names(module: PythonModule) -> Iterator[str]:
    """`getattr(sys, "_get" + "frame")`: a name that is put together of texts alone."""
    for node in module.nodes:
        arguments = node.args if isinstance(node, ast.Call) and _last_name(node) in _LOOKS_UP else []
        for argument in arguments:
            variable = any(isinstance(part, ast.Name | ast.Call) for part in ast.walk(argument))
            if isinstance(argument, ast.BinOp) and not variable:
                yield ast.unparse(argument)


def exit_or_thread_at_import(module: PythonModule) -> Iterator[str]:
    """What runs as the module is imported ends the process, or starts a thread or another process."""
    for node in _run_at_import(module.tree.body):
        name = dotted(node.func) if isinstance(node, ast.Call) else ""
        if name in ("exit", "quit", "sys.exit", "subprocess.run") or name.rpartition(".")[2] in _STARTS:
            yield f"{name}() at import"
        if isinstance(node, ast.Raise) and node.exc is not None and "Exit" in ast.unparse(node.exc):
            yield f"raise {ast.unparse(node.exc)} at import"


def _run_at_import(body: Collection[ast.stmt]) -> Iterator[ast.AST]:
    waiting: list[ast.AST] = list(body)
    while waiting:
        node = waiting.pop()
        yield node
        as_program = isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)
        if not as_program and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


def hidden_names(module: PythonModule) -> Iterator[str]:
    """A text names a file of the hidden tests."""
    files = [PurePosixPath(path) for path in module.hidden if path.endswith(".py")]
    names = {file.name for file in files} | {file.stem for file in files if "_" in file.stem}
    yield from (text[:80] for text in module.texts if text in names or any(str(file) in text for file in files))


def replaces_streams(module: PythonModule) -> Iterator[str]:
    """`sys.stdout = …` and the like."""
    for target in _stored(module.nodes):
        if dotted(target) in ("sys.stdout", "sys.stderr", "sys.argv"):
            yield f"{dotted(target)} = …"


def unusual_encoding(module: PythonModule) -> Iterator[str]:
    """A source encoding by which the text may be another than it seems."""
    if module.encoding.lower() not in _USUAL_ENCODINGS:
        yield f"source encoding {module.encoding}"


def shadows_a_module(module: PythonModule) -> Iterator[str]:
    """The file lies where Python finds it before a module of that name which tests import."""
    place = _import_path(module.path)
    top = place[0] if len(place) == 1 or place[1:] == ("__init__",) else ""
    if top in sys.stdlib_module_names or top in _IMPORTED_BY_TESTS:
        yield f"it is imported in the place of {top}"


CHECKS: Mapping[str, Callable[[PythonModule], Iterator[str]]] = {
    check.__name__: check
    for check in (
        writes_into_imports,
        writes_sys_modules,
        deceptive_types,
        computed_names,
        exit_or_thread_at_import,
        hidden_names,
        replaces_streams,
        unusual_encoding,
        shadows_a_module,
    )
}
