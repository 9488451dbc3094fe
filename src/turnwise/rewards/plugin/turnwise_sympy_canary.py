"""Tests made to fail, for SymPy's runner to run (see turnwise_sympy.py)."""


def test_assertion() -> None:
    assert len("canary") == 0


def test_exception() -> None:
    raise RuntimeError("canary")
