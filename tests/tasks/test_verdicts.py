"""What may be trained on: the words of a refusal, and whom it spares."""

import pytest

from turnwise.errors import InputError, TaskError
from turnwise.tasks.verdicts import GateVerdict, VerdictFile, require_gate
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


LINE = GateVerdict(instance_id="real", admitted=True).model_dump_json()


@pytest.mark.parametrize("text", ["", f"{LINE}\n", f"{LINE.replace(':', ': ')}\n\n"])
def test_a_whole_file_is_not_written_anew(tmp_path, text):
    path = tmp_path / "verdicts.jsonl"
    path.write_text(text)
    before = path.stat().st_ino
    VerdictFile(path)
    assert (path.read_text(), path.stat().st_ino) == (text, before)


@pytest.mark.parametrize("torn", [f'{LINE}\n{{"ins', LINE[:40], f"{LINE}\n{LINE[:-1]}", ""])
def test_a_torn_line_is_taken_out(tmp_path, torn):
    path = tmp_path / "verdicts.jsonl"
    path.write_text(torn)
    file = VerdictFile(path)
    file.add(GateVerdict(instance_id="made", admitted=True))
    assert list(VerdictFile(path).verdicts) == (["real", "made"] if "\n" in torn else ["made"])


def test_a_verdict_that_lacks_only_its_end_of_line_is_kept(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    path.write_text(LINE)
    VerdictFile(path).add(GateVerdict(instance_id="made", admitted=True))
    assert list(VerdictFile(path).verdicts) == ["real", "made"]


@pytest.mark.parametrize(
    "text", ['[{"instance_id": "real"}]', '{"instance_id": "real", "repo": "a/b"}', '{\n "real": {}\n}', "my notes"]
)
def test_a_file_of_another_kind_is_left_as_it_is(tmp_path, text):
    path = tmp_path / "tasks.json"
    path.write_text(text)
    with pytest.raises(TaskError, match=r"tasks\.json:1: (is no verdict|field 'admitted')"):
        VerdictFile(path)
    assert path.read_text() == text
