import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen2ForCausalLM

from turnwise.errors import CheckpointError, StoreError
from turnwise.trainer import Trainer, TrainerConfig
from turnwise.types import Trajectory

MakeTrajectory = Callable[..., Trajectory]
CONFIG = TrainerConfig(lr=1e-3, batch_size=2, warmup_steps=3, schedule="cosine", total_steps=4)


@pytest.fixture
def base(model: Qwen2ForCausalLM, tmp_path: Path) -> Path:
    """A base checkpoint with a tokenizer, a chat template and a licence."""
    directory = tmp_path / "base"
    model.save_pretrained(directory)
    tokenizer = Tokenizer(WordLevel({f"w{index}": index for index in range(67)}, unk_token="w0"))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0")
    fast.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    fast.save_pretrained(directory)
    (directory / "LICENSE").write_text("do as you like")
    return directory


def test_two_steps_a_restart_and_two_steps_are_four_steps(base: Path, sample: MakeTrajectory, tmp_path: Path) -> None:
    pairs = [(sample(seed, first=3 + seed), 1.0 - seed / 3) for seed in range(8) if seed != 3]
    straight = Trainer(base, CONFIG)
    expected = straight.reinforce(pairs[:4]) + straight.reinforce(pairs[4:])
    assert len(expected) == 4

    first = Trainer(base, CONFIG)
    metrics = first.reinforce(pairs[:4])
    first.save(tmp_path / "checkpoint")
    second = Trainer.load(tmp_path / "checkpoint", CONFIG)
    metrics += second.reinforce(pairs[4:])
    assert metrics == expected
    for name, value in straight.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_transformers_loads_what_is_saved(base: Path, sample: MakeTrajectory, tmp_path: Path) -> None:
    trainer = Trainer(base, CONFIG)
    trainer.fine_tune([sample(0)])
    trainer.save(tmp_path / "checkpoint")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint")
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, trainer.state_dict()[name]), name
    assert not torch.equal(loaded.lm_head.weight, AutoModelForCausalLM.from_pretrained(base).lm_head.weight)
    assert (tmp_path / "checkpoint" / "model.safetensors").is_file()


def test_tokenizer_and_template_are_carried_from_checkpoint_to_checkpoint(base: Path, tmp_path: Path) -> None:
    Trainer(base, CONFIG).save(tmp_path / "one")
    Trainer.load(tmp_path / "one", CONFIG).save(tmp_path / "two")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "LICENSE"):
        assert (tmp_path / "two" / name).read_bytes() == (base / name).read_bytes(), name
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "two")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "w3 w4"}], tokenize=False) == "w3 w4"


def test_the_recipes_numbers_win_over_the_checkpoints(base: Path, sample: MakeTrajectory, tmp_path: Path) -> None:
    trainer = Trainer(base, CONFIG)
    trainer.fine_tune([sample(0)])
    trainer.save(tmp_path / "checkpoint")
    resumed = Trainer.load(tmp_path / "checkpoint", TrainerConfig(lr=5e-4, schedule="constant"))
    (metrics,) = resumed.fine_tune([sample(1)])
    assert (metrics.step, metrics.lr) == (2, 5e-4)


def test_saving_again_replaces_the_whole_checkpoint(base: Path, sample: MakeTrajectory, tmp_path: Path) -> None:
    trainer, target = Trainer(base, CONFIG), tmp_path / "run" / "checkpoint"
    trainer.save(target)
    (target / "stray").write_text("of the old one")
    trainer.fine_tune([sample(0)])
    trainer.save(target)
    assert not (target / "stray").exists()
    assert Trainer.load(target, CONFIG).step == 1
    assert [path.name for path in target.parent.iterdir()] == ["checkpoint"]


def test_a_kill_between_the_two_renames_loses_nothing(base: Path, tmp_path: Path) -> None:
    target = tmp_path / "run" / "checkpoint"
    Trainer(base, CONFIG).save(target)
    target.rename(target.with_name(".checkpoint.old"))  # what a kill at that instant leaves
    assert Trainer.load(target, CONFIG).step == 0
    assert [path.name for path in target.parent.iterdir()] == ["checkpoint"]


KILLED = """
import sys
from turnwise.trainer import Trainer, TrainerConfig
trainer = Trainer(sys.argv[1], TrainerConfig())
while True:
    trainer.step += 1
    trainer.save(sys.argv[2])
    print(trainer.step, flush=True)
"""


def test_kill_at_any_instant_leaves_a_whole_checkpoint(base: Path, tmp_path: Path) -> None:
    target = tmp_path / "run" / "checkpoint"
    command = [sys.executable, "-c", KILLED, str(base), str(target)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as child:
        assert child.stdout is not None
        saved = [int(child.stdout.readline()) for _ in range(25)][-1]
        child.kill()
    trainer = Trainer.load(target, CONFIG)
    assert trainer.step >= saved
    trainer.save(target)
    assert [path.name for path in target.parent.iterdir()] == ["checkpoint"]  # the half-written one is swept away


FULL_DISK = """
import json, os, sys
from turnwise.errors import StoreError
from turnwise.trainer import Trainer, TrainerConfig
trainer, errors = Trainer(sys.argv[1], TrainerConfig()), []
for name in ("one", "two", "three", "one"):
    trainer.step += 1
    try:
        trainer.save(f"/mnt/{name}")
    except StoreError as error:
        errors.append(str(error))
there = {name: Trainer.load(f"/mnt/{name}", TrainerConfig()).step for name in sorted(os.listdir("/mnt"))}
print(json.dumps({"errors": errors, "there": there}))
"""


def test_a_full_disk_is_one_clear_error_and_earlier_checkpoints_stay(base: Path) -> None:
    """A real full disk: a tmpfs with room for two and a half checkpoints, so neither a third nor a replacement."""
    Trainer(base, CONFIG).save(base.with_name("saved"))
    pages = sum(1 + path.stat().st_size // 4096 for path in base.with_name("saved").iterdir())
    disk = ["bwrap", "--dev-bind", "/", "/", "--size", str(int(pages * 2.5) * 4096), "--tmpfs", "/mnt"]
    command = [*disk, sys.executable, "-c", FULL_DISK, str(base)]
    ran = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["there"] == {"one": 1, "two": 2}
    assert len(told["errors"]) == 2
    assert all("could not be written" in each and "No space left" in each for each in told["errors"])


def test_a_file_where_the_checkpoint_should_go_is_an_error(base: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="could not be written"):
        Trainer(base, CONFIG).save(tmp_path / "file" / "checkpoint")


def test_going_on_from_what_is_no_checkpoint_is_an_error(base: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no turnwise_trainer\.state"):
        Trainer.load(base, CONFIG)
    with pytest.raises(CheckpointError, match="no causal language model could be loaded"):
        Trainer(tmp_path / "nowhere", CONFIG)
    Trainer(base, CONFIG).save(tmp_path / "damaged")
    (tmp_path / "damaged" / "turnwise_trainer.state").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Trainer.load(tmp_path / "damaged", CONFIG)
