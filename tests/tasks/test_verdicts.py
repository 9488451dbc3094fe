"""What may be trained on: the words of a refusal, and whom it spares."""

import pytest

from turnwise.errors import InputError
from turnwise.tasks.verdicts import GateVerdict, require_gate
from turnwise.types import Checkout, SourceDistribution, Task


def _task(name, environment):
    return Task(name, "a/b", "c" * 40, "p", "t", "s", ("x",), (), environment)


MADE = _task("made", SourceDistribution("a", "1", ""))
REAL = _task("real", Checkout())


def test_a_task_of_a_repository_needs_a_gate_and_a_made_one_does_not():
    require_gate([MADE], None)
    require_gate([MADE, REAL], "none")
    with pytest.raises(InputError, match=r"tasks\.gate: real did not pass the gate"):
        require_gate([MADE, REAL], None)


def test_the_verdicts_admit_by_name(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    lines = [
        GateVerdict(instance_id="real", admitted=True),
        GateVerdict(instance_id="made", admitted=False, reason="x"),
    ]
    path.write_text("".join(line.model_dump_json() + "\n" for line in lines))
    require_gate([REAL], str(path))
    absent = _task("absent", Checkout())
    with pytest.raises(InputError, match=r"does not admit made \(x\), absent \(no line\)"):
        require_gate([MADE, REAL, absent], str(path))
