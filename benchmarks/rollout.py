"""Rollout throughput: the embedded policy beside plain `transformers.generate`, on one load of many-turn episodes.

Every engine gets the same random Qwen2 model, the same openings, response lengths and observations, temperature 1 with
nothing truncated, and a sandbox that answers at once. The plain loop serves one episode after the other, so its rate
doesn't depend on how many there are and a few episodes measure it. The batched loop left-pads all episodes and goes
turn by turn; a row stops at its own length, the batch at the longest.

    python benchmarks/rollout.py [--episodes 32] [--turns 10] [--threads 1] [--json]
"""

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from turnwise.policy.torch_policy import TorchPolicy
from turnwise.types import Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VOCABULARY = 3_000
SYSTEM_TOKENS, ISSUE_TOKENS, GROUP = 150, 150, 8
RESPONSE_TOKENS, OBSERVATION_TOKENS = (10, 60), (20, 100)


@dataclass(frozen=True)
class Episode:
    """An opening and, per turn, how many tokens the response has and what is observed after it."""

    opening: list[int]
    response_lengths: list[int]
    observations: list[list[int]]


@dataclass(frozen=True)
class Measurement:
    """How many tokens an engine sampled in how long."""

    engine: str
    episodes: int
    sampled_tokens: int
    wall_s: float
    cpu_s: float

    @property
    def tokens_per_s(self) -> float:
        """Sampled tokens a second, prefill included in the time."""
        return self.sampled_tokens / self.wall_s


def make_episodes(count: int, turns: int, seed: int) -> list[Episode]:
    """Episodes in groups of `GROUP` with equal openings; all openings share the system prompt."""
    rng = np.random.default_rng(seed)

    def tokens(n: int) -> list[int]:
        return rng.integers(5, VOCABULARY, n).tolist()

    system = tokens(SYSTEM_TOKENS)
    issues = [tokens(ISSUE_TOKENS) for _ in range(-(-count // GROUP))]
    return [
        Episode(
            system + issues[index // GROUP],
            rng.integers(*RESPONSE_TOKENS, turns, endpoint=True).tolist(),
            [tokens(int(n)) for n in rng.integers(*OBSERVATION_TOKENS, turns, endpoint=True)],
        )
        for index in range(count)
    ]


def make_model(positions: int) -> "PreTrainedModel":
    """A model of the stand-in's kind, Qwen2 of six layers, but of 5.3M parameters to its 3.2M; random weights."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def run_turnwise(episodes: Sequence[Episode], positions: int, threads: int) -> int:
    """All episodes at once through `TorchPolicy`; returns the sampled tokens."""

    async def play(policy: TorchPolicy, index: int, episode: Episode) -> int:
        history, sampled = list(episode.opening), 0
        for turn, (length, observation) in enumerate(zip(episode.response_lengths, episode.observations, strict=True)):
            sample = await policy.sample(history, Sampling(length, seed=1000 * index + turn), str(index))
            sampled += len(sample.token_ids)
            history += [*sample.token_ids, *observation]
        await policy.end_session(str(index))
        return sampled

    async def play_all() -> int:
        policy = TorchPolicy(make_model(positions), max_sequences=len(episodes), threads=threads)
        counts = await asyncio.gather(*(play(policy, i, episode) for i, episode in enumerate(episodes)))
        await policy.close()
        return sum(counts)

    return asyncio.run(play_all())


def run_generate(episodes: Sequence[Episode], positions: int, threads: int, *, batched: bool) -> int:
    """Plain `generate` turn by turn: every episode by itself, or all of them as one left-padded batch."""
    torch.set_num_threads(threads)
    model = make_model(positions)
    batches = [list(episodes)] if batched else [[episode] for episode in episodes]
    return sum(_generate_episodes(model, batch) for batch in batches)


def _generate_episodes(model: "PreTrainedModel", batch: Sequence[Episode]) -> int:
    histories, sampled = [list(episode.opening) for episode in batch], 0
    for turn in range(len(batch[0].response_lengths)):
        lengths = [episode.response_lengths[turn] for episode in batch]
        for history, response, episode in zip(histories, _generate(model, histories, lengths), batch, strict=True):
            sampled += len(response)
            history += [*response, *episode.observations[turn]]
    return sampled


def _generate(model: "PreTrainedModel", histories: Sequence[list[int]], lengths: Sequence[int]) -> list[list[int]]:
    from transformers import StoppingCriteriaList

    width = max(map(len, histories))
    input_ids = torch.tensor([[0] * (width - len(history)) + history for history in histories])
    attention_mask = torch.tensor([[0] * (width - len(history)) + [1] * len(history) for history in histories])
    ends = torch.tensor(lengths) + width

    def reached(ids: torch.Tensor, _: torch.Tensor, **__: object) -> torch.Tensor:
        return ids.shape[1] >= ends

    output = model.generate(
        input_ids=input_ids,
        attention_mask=attention_mask,
        do_sample=True,
        top_k=0,
        top_p=1.0,
        temperature=1.0,
        max_new_tokens=max(lengths),
        eos_token_id=None,
        pad_token_id=0,
        stopping_criteria=StoppingCriteriaList([reached]),
    )
    return [row[width : width + n].tolist() for row, n in zip(output, lengths, strict=True)]


def measure(engine: str, episodes: Sequence[Episode], run: Callable[[Sequence[Episode]], int]) -> Measurement:
    """Time one engine over the episodes."""
    start, cpu_start = time.perf_counter(), time.process_time()
    sampled = run(episodes)
    return Measurement(engine, len(episodes), sampled, time.perf_counter() - start, time.process_time() - cpu_start)


def compare(episodes: Sequence[Episode], plain_episodes: int, threads: int) -> list[Measurement]:
    """The three engines, one after the other, on the same load."""
    longest = max(
        len(episode.opening) + sum(episode.response_lengths) + sum(map(len, episode.observations))
        for episode in episodes
    )
    return [
        measure("turnwise", episodes, lambda load: run_turnwise(load, longest, threads)),
        measure("generate, all in a batch", episodes, lambda load: run_generate(load, longest, threads, batched=True)),
        measure(
            "generate, one by one",
            episodes[:plain_episodes],
            lambda load: run_generate(load, longest, threads, batched=False),
        ),
    ]


def table(measurements: Sequence[Measurement]) -> str:
    """Rates and how many times faster turnwise is."""
    ours = measurements[0].tokens_per_s
    lines = [f"{'engine':<26}{'episodes':>9}{'tokens':>9}{'seconds':>9}{'CPU s':>8}{'tokens/s':>10}{'turnwise is':>13}"]
    lines += [
        f"{m.engine:<26}{m.episodes:>9}{m.sampled_tokens:>9}{m.wall_s:>9.1f}{m.cpu_s:>8.1f}{m.tokens_per_s:>10.0f}"
        f"{ours / m.tokens_per_s:>12.1f}x"
        for m in measurements
    ]
    return "\n".join(lines)


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description="tokens/s of many-turn episodes, beside transformers.generate")
    parser.add_argument("--episodes", type=int, default=32)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--plain-episodes", type=int, default=2, help="how many of them measure the one-by-one loop")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args()
    episodes = make_episodes(options.episodes, options.turns, options.seed)
    measurements = compare(episodes, options.plain_episodes, options.threads)
    if not options.json:
        print(table(measurements))
        return
    rows = [vars(m) | {"tokens_per_s": m.tokens_per_s} for m in measurements]
    ours = measurements[0].tokens_per_s
    ratios = {m.engine: ours / m.tokens_per_s for m in measurements[1:]}
    print(json.dumps({"load": vars(options), "engines": rows, "turnwise_is_times": ratios}))


if __name__ == "__main__":
    main()
