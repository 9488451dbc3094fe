"""Hears what Python's audit hooks tell of the code under test. Runs inside the sandbox, in the tests' own process.

An audit hook cannot be taken off again by Python code. Needs Python 3.8; before that there are none.
"""

import ast
import os
import sys
from typing import AbstractSet, Any, Callable, Iterator, Tuple

from turnwise_files import Files
from turnwise_fingerprint import PACKAGES

SEARCHES = frozenset(("gc.get_objects", "gc.get_referrers", "gc.get_referents", "sys._current_frames"))
STEERS = frozenset(("sys.settrace", "sys.setprofile", "ctypes.cdata"))
PATCHES = frozenset(("__code__", "__defaults__", "__kwdefaults__"))
AST = ast.__file__
LIBRARY = os.__file__[: -len("os.py")]


def make_audit(files: Files, watched: AbstractSet[str], alarm: Callable[[str], None]) -> Callable[..., None]:
    """An audit hook that raises alarms. `watched` are names of modules whose functions nobody may patch in place."""
    frame, searches, steers, patches, packages = sys._getframe, SEARCHES, STEERS, PATCHES, PACKAGES

    def audit(event: str, args: Tuple[Any, ...]) -> None:
        if event in searches or event in steers:
            path = _caller(frame(1))
            if files.is_suspect(path) or (not path and event in searches):
                alarm(f"{path or 'a thread'} calls {event}: it searches or steers the interpreter that judges it")
        elif event in ("compile", "code.__new__"):
            if _by_patch(files, frame(1)) or not (_imports(frame(1)) or _caller(frame(1))):
                files.claim(args[1])
        elif event in ("marshal.loads", "marshal.load"):
            if not _imports(frame(1)) and (_by_patch(files, frame(1)) or not _caller(frame(1))):
                files.claim("/")
        elif event == "open" and str(args[0]).startswith("/proc/") and str(args[0]).endswith("/mem"):
            alarm("the code under test opens the memory of a process")
        elif event == "object.__setattr__" and args[1] in patches:
            module = str(getattr(args[0], "__module__", ""))
            own = args[1] != "__code__" or not files.is_old(args[0].__code__.co_filename)
            if not own and files.is_suspect(_caller(frame(1))):
                alarm(f"code of the patch replaces the code of {args[0].__qualname__}")
            elif (module + ".").startswith(packages) or module in watched:
                alarm(f"{args[1]} of {args[0].__qualname__}, a function of the test machinery, was set")

    return audit


def _callers(frame: Any) -> Iterator[Any]:
    """The frames of the stack, innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _by_patch(files: Files, frame: Any) -> bool:
    """Whether code of the patch is at work, at whatever depth."""
    return any(files.is_suspect(caller.f_code.co_filename) for caller in _callers(frame))


def _imports(frame: Any) -> bool:
    """Whether a frame is of what imports modules, Python's own or pytest's, which rewrites assertions; or of `ast`, by
    which that reads them."""
    path = frame.f_code.co_filename
    return bool(path.startswith("<frozen ") or path.endswith("_pytest/assertion/rewrite.py") or path == AST)


def is_library(path: str) -> bool:
    """Whether a file is of the standard library."""
    return path.startswith((LIBRARY, "<frozen ")) and "-packages" not in path


def _caller(frame: Any) -> str:
    """The file of the innermost code that acts for itself, as generated code, the standard library and the test
    machinery do not: they call what they are given. "" where there is none, as in a thread made of their functions."""
    for caller in _callers(frame):
        path = caller.f_code.co_filename
        machinery = (str(caller.f_globals.get("__name__", "")) + ".").startswith(PACKAGES)
        if not (path.startswith("<") or is_library(path) or machinery):
            return str(path)
    return ""
