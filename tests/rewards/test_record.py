"""Records of test runs, as they are read on the host."""

import json
from hashlib import blake2b

import pytest

from turnwise.rewards.record import read_record

ROW = "('t.py::a', 'call', 'passed', False, False)\n"


def rows(*reports: tuple[object, ...]) -> str:
    return "".join(f"{report!r}\n" for report in reports)


def sealed(text: str, secret: bytes) -> str:
    mac = blake2b(text.encode(), key=secret, digest_size=32).hexdigest()
    return text + json.dumps({"seal": mac}) + "\n"


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
    text = rows(*(("t.py::a", *report, False) for report in reports))

    assert read_record(text, b"").outcomes == {"t.py::a": outcome}


def test_a_line_cut_short_is_passed_over():
    assert read_record(ROW + ROW[:20], b"").outcomes == {"t.py::a": "passed"}


@pytest.mark.parametrize("line", ['{"id": 3', "('end',", "[" * 100_000, "1" * 5_000, "__import__('os')", "3", "()"])
def test_a_record_that_others_wrote_to_holds_no_more_than_its_rows(line):
    record = read_record(ROW + line, b"")

    assert record.outcomes == {"t.py::a": "passed"}
    assert (record.sealed, record.finished, record.exit_code) == (False, False, None)


def test_only_the_secret_seals():
    text = ROW + rows(("end", 0)) + json.dumps({"exit_code": 0, "timed_out": False, "leftover": 0, "log": "x"}) + "\n"

    assert read_record(sealed(text, b"secret"), b"secret").sealed
    assert not read_record(sealed(text, b"other"), b"secret").sealed
    assert not read_record(sealed(text, b"secret").replace("passed", "failed"), b"secret").sealed
    assert read_record(sealed(text, b"secret"), b"secret").finished


def test_a_failure_that_is_none_is_passed_over():
    assert read_record(rows(("failure", "t.py::a", {"phase": 3})), b"").failures == {}
