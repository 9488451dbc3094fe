"""Tests made to fail, for SymPy's runner to run (see turnwise_sympy.py)."""


def test_assertion() -> None:
    """Ends in an assertion that does not hold."""
    assert len("canary") == 0


def test_exception() -> None:
    """Ends in an error."""
    raise RuntimeError("canary")
