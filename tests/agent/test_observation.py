"""The words of observations, which models are trained on: a change here is a change of the data."""

import pytest

from turnwise.agent.observation import FORMAT_ERROR_TEXTS, describe, prompt_line, shortened
from turnwise.types import ExecResult, FormatError

DESCRIPTIONS = {
    ExecResult("out\n\n", 0, 0.1): "out",
    ExecResult("  out\n", 2, 0.1): "  out\n[exit code 2]",
    ExecResult("", 0, 0.1): "[no output]",
    ExecResult("\n", 1, 0.1): "[exit code 1]",
    ExecResult("so far\n", 124, 5.0, timed_out=True): "so far\n[stopped: still running after 5 seconds]",
    ExecResult("headtail", 0, 0.1, left_out_bytes=1_992, head_chars=4): (
        "head\n[output cut: 1,992 of 2,000 bytes left out in the middle]\ntail"
    ),
}


@pytest.mark.parametrize(("result", "text"), DESCRIPTIONS.items())
def test_a_result_is_described_in_these_words(result, text):
    assert describe(result, 100, 5.0) == text


def test_format_errors_have_these_words():
    assert FORMAT_ERROR_TEXTS[FormatError.NO_COMMAND] == (
        "[format error: no ```command block in the reply; end it with exactly one]"
    )
    assert FORMAT_ERROR_TEXTS[FormatError.MULTIPLE_COMMANDS] == (
        "[format error: several ```command blocks in the reply, none run; give exactly one]"
    )


def test_a_long_output_keeps_head_and_tail_and_says_what_is_missing():
    text = shortened(ExecResult("h" * 10_000 + "t" * 10_000, 0, 0.1), 7_655)
    head, note, tail = text.split("\n")
    assert note == "[output cut: 12,345 of 20,000 characters left out in the middle]"
    assert (set(head), set(tail), len(head) + len(tail)) == ({"h"}, {"t"}, 7_655)


def test_an_output_at_the_limit_is_whole():
    assert shortened(ExecResult("x" * 200, 0, 0.1), 200) == "x" * 200


def test_what_the_sandbox_left_out_counts_as_left_out():
    output = "h" * 600 + "é" * 300
    text = shortened(ExecResult(output, 0, 0.1, left_out_bytes=8_800, head_chars=600), 200)
    assert text == f"{'h' * 100}\n[output cut: 9,700 of 10,000 bytes left out in the middle]\n{'é' * 100}"


def test_the_prompt_line_is_one_line():
    assert prompt_line("/testbed", "/tmp/a.py") == "(cwd: /testbed, open: /tmp/a.py)"
    assert prompt_line("/", "/tmp/a.py") == "(cwd: /, open: tmp/a.py)"
    assert prompt_line("/testbedding", "/testbed/a\nb") == "(cwd: /testbedding, open: /testbed/a?b)"
