"""A test runner of a repository's own that speaks as SymPy's does: the same classes, methods and log."""

import inspect
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def strict():
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        yield


class PyTestReporter:
    def __init__(self):
        self.failed = []

    def root_dir(self, folder):
        self.folder = folder

    def write(self, text):
        sys.stdout.write(text)
        sys.stdout.flush()

    def entering_filename(self, filename, count):
        self.write(f"{Path(filename).relative_to(self.folder)}[{count}] ")

    def leaving_filename(self):
        self.write("\n")

    def entering_test(self, function):
        self.name = function.__name__
        self.write("\n" + self.name + " ")

    def test_pass(self, char="."):
        self.write("ok")

    def test_fail(self, raised):
        self.failed.append(self.name)
        self.write("F")

    def test_exception(self, raised):
        self.failed.append(self.name)
        self.write("E")

    def test_skip(self, why=None):
        self.write(f"{why} s")

    def test_xfail(self):
        self.write("f")

    def test_xpass(self, why):
        self.write("X")


class SymPyTests:
    def __init__(self, reporter, kw="", post_mortem=False, seed=None):
        self.reporter = reporter
        reporter.root_dir(Path.cwd())

    def test_file(self, filename):
        reporter = self.reporter
        names = {"__file__": filename}
        exec(compile(Path(filename).read_text(), filename, "exec"), names)
        funcs = [names[name] for name in names if name.startswith("test_") and inspect.isfunction(names[name])]
        reporter.entering_filename(filename, len(funcs))
        for test in funcs:
            reporter.entering_test(test)
            try:
                with strict():
                    test()
            except Exception:
                kind, value, traceback = sys.exc_info()
                if kind is AssertionError:
                    reporter.test_fail((kind, value, traceback))
                elif kind.__name__ == "Skipped":
                    reporter.test_skip(value)
                else:
                    reporter.test_exception((kind, value, traceback))
            else:
                reporter.test_pass()
        reporter.leaving_filename()


def run(words):
    tests = SymPyTests(PyTestReporter())
    for word in words:
        if not word.startswith("-"):
            tests.test_file(str(Path(word).absolute()))
    return not tests.reporter.failed
