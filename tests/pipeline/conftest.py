"""A whole run in seconds: copies of one small task, and tiny models that half know how to solve it."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from turnwise.agent import AgentConfig, ChatRenderer, load_tokenizer, opening_messages
from turnwise.policy import ScriptedPolicy
from turnwise.rollout import Collector, EpisodeRequest
from turnwise.sandbox import LocalBackend
from turnwise.store import EpisodeKey, Journal
from turnwise.tasks import write_tasks
from turnwise.trainer import Trainer, TrainerConfig

FIX = ["The sign.\n```command\nsed -i s/-/+/ calc.py\n```", "Done.\n```command\nsubmit\n```"]
SCAFFOLD = AgentConfig(system_prompt="compact", max_turns=3, context_tokens=512, max_response_tokens=40)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
}
CONFIGS = {"qwen2": Qwen2Config, "llama": LlamaConfig, "qwen3": Qwen3Config}
RECIPE = """
[run]
name = "mini"
seed = 3
[model]
checkpoint = "qwen2"
[tasks]
path = "tasks.jsonl"
[agent]
system_prompt = "compact"
max_turns = 3
context_tokens = 512
max_response_tokens = 40
command_timeout_s = 10.0
[policy]
concurrency = 8
threads = 1
[trainer]
threads = 1
[[stages]]
name = "rft"
kind = "rft"
runs = 2
lr = 1e-4
batch_size = 4
[[stages]]
name = "rl-1"
kind = "rl"
iterations = 3
problems_per_iteration = 2
group_size = 4
batch_size = 4
clip_low = 0.2
clip_high = 0.3
length_threshold = 2
lr = 1e-4
[[stages]]
name = "rl-2"
kind = "rl"
refresh = { max_success = 1.0 }
iterations = 1
problems_per_iteration = 2
group_size = 4
batch_size = 8
clip_low = 0.2
clip_high = 0.26
max_turns = 4
lr = 1e-4
[evaluation]
points = ["base", "rft", "rl-1", "rl-2"]
runs = 2
k = 2
every = 2
every_runs = 1
"""


@pytest.fixture(scope="session")
def make_model(small_world, tmp_path_factory):
    """Write a tiny random model of an architecture, with a tokenizer made for the task's own words."""

    def make(architecture: str, folder: Path) -> Path:
        tokenizer = _tokenizer([m.content for m in opening_messages(small_world.task, SCAFFOLD)] + FIX)
        tokenizer.save_pretrained(folder)
        torch.manual_seed(0)
        config = CONFIGS[architecture](vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **SIZES)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        return folder

    return make


def _tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    byte_pairs = Tokenizer(models.BPE())
    byte_pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_pairs.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|im_start|>", "<|im_end|>"]
    byte_pairs.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_pairs, eos_token="<|im_end|>")
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture(scope="session")
def mini(small_world, make_model, tmp_path_factory) -> Path:
    """A folder with `mini.toml`, its tasks and `qwen2`, a model that resolves the task about every other time."""
    folder = tmp_path_factory.mktemp("mini")
    (folder / "mini.toml").write_text(RECIPE)
    environment = replace(small_world.task.environment, sha256="0" * 64)
    tasks = [
        replace(small_world.task, instance_id=f"small__calc-{n}", environment=environment, meta={"split": split})
        for n, split in enumerate(["train"] * 3 + ["heldout"] * 2)
    ]
    write_tasks(folder / "tasks.jsonl", tasks)
    random = make_model("qwen2", folder / "random")
    _teach(random, small_world, tmp_path_factory.mktemp("lesson")).save(folder / "qwen2")
    return folder


def _teach(checkpoint: Path, world, folder: Path) -> Trainer:
    """Imitate a scripted solution until the model gives the whole of it about every other time."""
    solution = asyncio.run(_solve(checkpoint, world, folder))
    trainer = Trainer(checkpoint, TrainerConfig(lr=3e-3, warmup_steps=5, batch_size=1, threads=1))
    for _ in range(300):
        if trainer.logprobs([solution])[0].sum() > -0.7:
            return trainer
        trainer.fine_tune([solution])
    raise AssertionError("the tiny model does not learn its lesson")


async def _solve(checkpoint: Path, world, folder: Path):
    tokenizer = load_tokenizer(checkpoint)
    backend = LocalBackend()
    with Journal.open(folder / "journal.sqlite", "lesson") as journal:
        collector = Collector(
            policy=ScriptedPolicy(FIX, tokenizer),
            renderer=ChatRenderer(tokenizer),
            backend=backend,
            environments=world,
            journal=journal,
            agent_config=SCAFFOLD,
            seed=0,
        )
        key = EpisodeKey("lesson", "collect", 0, world.task.instance_id, 0)
        (solution,) = await collector.collect([EpisodeRequest(key, world.task)])
    await backend.close()
    assert solution.resolved, solution.verdict
    return solution
