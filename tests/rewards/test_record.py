"""Records of test runs, as they are read on the host."""

from hashlib import blake2b

import pytest

from turnwise.rewards.record import read_record

ROW = ("t.py::a", "call", "passed", False, False)


def content(*rows: object, log: bytes = b"", secret: bytes | None = None) -> bytes:
    """What the supervisor writes for these rows; a text stands for itself."""
    lines = "".join(f"{row if isinstance(row, str) else repr(row)}\n" for row in rows).encode()
    text = b"%d\n%b%b" % (len(lines), lines, log)
    return text if secret is None else text + blake2b(text, key=secret, digest_size=32).hexdigest().encode()


@pytest.mark.parametrize(
    ("reports", "outcome"),
    [
        ([("call", "passed", False)], "passed"),
        ([("setup", "skipped", False)], "skipped"),
        ([("call", "skipped", True)], "xfailed"),
        ([("call", "passed", True)], "passed"),
        ([("call", "failed", False)], "failed"),
        ([("setup", "failed", False)], "error"),
        ([("call", "passed", False), ("teardown", "failed", False)], "error"),
        ([("call", "failed", False), ("call", "passed", False)], "failed"),
        ([("call", "rerun", False), ("call", "passed", False)], "passed"),
        ([("setup", "rerun", False), ("call", "failed", False)], "failed"),
    ],
)
def test_the_outcome_of_a_test_is_the_worst_of_its_last_run(reports, outcome):
    rows = [("t.py::a", *report, False) for report in reports]

    assert read_record(content(*rows), b"").outcomes == {"t.py::a": outcome}


@pytest.mark.parametrize("line", ['{"id": 3', "('end',", "[" * 100_000, "1" * 5_000, "__import__('os')", "3", "()"])
def test_a_line_that_is_no_row_is_passed_over(line):
    record = read_record(content(ROW, line), b"")

    assert record.outcomes == {"t.py::a": "passed"}
    assert (record.sealed, record.finished, record.exit_code) == (False, False, None)


@pytest.mark.parametrize("text", [b"", b"\n", b"9" * 30 + b"\n('end', 0)", b"-5\nx", b"\xff\n\xff"])
def test_what_is_no_record_at_all_holds_nothing(text):
    assert read_record(text, b"").outcomes == {}


def test_only_the_secret_seals():
    rows = [ROW, ("end", 0), ("ran", 0, False, 0, [b"1\t0\tcalc.py\0"])]
    text = content(*rows, log=b"2 passed\n", secret=b"secret")

    record = read_record(text, b"secret")

    assert (record.sealed, record.finished, record.exit_code, record.log) == (True, True, 0, "2 passed\n")
    assert record.contents == [b"1\t0\tcalc.py\0"]
    assert not read_record(text, b"other").sealed
    assert not read_record(text.replace(b"2 passed", b"3 passed"), b"secret").sealed
    assert not read_record(content(ROW, secret=b"secret"), b"secret").sealed


def test_a_failure_that_is_none_is_passed_over():
    assert read_record(content(("failure", "t.py::a", {"phase": 3})), b"").failures == {}
