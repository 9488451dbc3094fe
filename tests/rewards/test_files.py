"""Whose code is whose, in files that change, move and hide behind links."""

import importlib.util
import sys
import time
from types import CodeType, ModuleType

import pytest

from turnwise.rewards.suite import suite_mount

TICK_S = 0.05  # more than the clock that dates files takes for a tick
SOURCE = "def one():\n    assert True\n    return 1\n"


@pytest.fixture
def files(tmp_path, monkeypatch) -> ModuleType:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(suite_mount().host))
    spec = importlib.util.spec_from_file_location("turnwise_files", suite_mount().host / "turnwise_files.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_of(path: str, source: str = SOURCE) -> CodeType:
    namespace: dict = {}
    exec(compile(source, path, "exec", dont_inherit=True), namespace)
    return namespace["one"].__code__


def test_suspects_are_what_git_says_whatever_their_names(files, tmp_path):
    (tmp_path / "said").write_bytes(b"1\t2\ta:b.py\x00-\t-\tfolder/with\ttab\nand line.py\x00")

    assert list(files.read_suspects("said")) == ["a:b.py", "folder/with\ttab\nand line.py"]
    assert list(files.read_suspects("")) == []


def test_a_suspect_is_known_behind_links(files, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    found = files.Files(["real/a.py"])

    assert found.is_suspect("link/a.py")
    assert found.is_suspect(str(tmp_path / "real" / "a.py"))
    assert not found.is_suspect("real/b.py")


def test_what_is_trusted_is_neither_suspect_nor_new(files, tmp_path):
    (tmp_path / "a.py").write_text(SOURCE)
    (tmp_path / "b.py").write_text(SOURCE)
    time.sleep(TICK_S)
    found = files.Files(["a.py", "b.py"])
    found.trust([str(tmp_path / "a.py")])
    (tmp_path / "b.py").rename(tmp_path / "c.py")

    assert [found.is_suspect(name) for name in ("a.py", "b.py")] == [False, True]
    assert [found.is_new(str(tmp_path / name)) for name in ("a.py", "c.py")] == [False, True]


def test_a_file_holds_its_own_code_only(files, tmp_path):
    (tmp_path / "a.py").write_text(SOURCE)
    time.sleep(TICK_S)
    found = files.Files([])

    assert found.holds(code_of("a.py"))
    assert not found.holds(code_of("a.py", SOURCE.replace("return 1", "return 2")))
    assert not found.holds(code_of("gone.py"))
    assert "turnwise_files" not in sys.modules


def test_a_file_written_since_the_tests_began_holds_nothing(files, tmp_path):
    found = files.Files([])
    (tmp_path / "a.py").write_text(SOURCE)

    assert not found.holds(code_of("a.py"))
