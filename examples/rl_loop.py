"""The whole algorithm on one page: an agent learns to repair code from nothing but its hidden tests.

    python examples/rl_loop.py                # about a minute on a CPU

Everything is real and small: repositories under git, sandboxes, the agent's tools, a language model, the sampling
engine. Read it from `main` upwards, or from the top:

    play        an episode: sample a response, run its command in a sandbox, append what came back, until `submit`
    pay         the reward: 1 if the hidden test accepts the patch in a fresh sandbox, else 0
    fine_tune   phase 1, rejection fine-tuning: imitate the model's own successes
    reinforce   phase 2, DAPO: compare the episodes of one task with each other, make the better ones likelier
    main        base model → phase 1 → phase 2, with the share of solved tasks after each

The paper is arXiv:2508.03501. Left out here: retries, the journal, checkpoints, micro-batches, the length penalty. They
are in `turnwise.rollout`, `turnwise.trainer` and `turnwise.pipeline`; the steps there are the same.
"""

import asyncio
import copy
import random
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from turnwise.agent import AgentConfig, ChatRenderer, act, opening_messages, take_patch, with_tools
from turnwise.algorithms import dapo_loss, group_advantages, imitation_loss, nonzero_advantages
from turnwise.policy import Policy, ScriptedPolicy
from turnwise.policy.torch_policy import TorchPolicy
from turnwise.sandbox import LocalBackend, SandboxBackend
from turnwise.types import Sampling, SandboxSpec, SourceDistribution, StopReason, Task, Trajectory, Turn

ITERATIONS = 5  # of phase 2
GROUP_SIZE = 10  # G: complete episodes of one task under one policy
CLIP_LOW, CLIP_HIGH = 0.2, 0.3  # the paper's stage 1
AGENT = AgentConfig(system_prompt="compact", window_lines=8, max_turns=6, context_tokens=1024, max_response_tokens=48)
OPERATORS = ("+", "-", "*", "//", "%")  # the first is right


@dataclass(frozen=True)
class Problem:
    """A task, what its sandbox starts from, and the hidden test: code that must run without an error."""

    task: Task
    spec: SandboxSpec
    hidden_test: str


def make_problems(folder: Path) -> list[Problem]:
    """Four repositories of one file, each with another wrong operator, under git."""
    return [make_problem(folder / f"calc-{index}", wrong) for index, wrong in enumerate(OPERATORS[1:])]


def make_problem(root: Path, wrong: str) -> Problem:
    """`total` should add its arguments and does something else."""
    root.mkdir()
    (root / "calc.py").write_text(f"def total(a, b):\n    return a {wrong} b\n", encoding="utf-8")
    git = ["git", "-c", "user.name=example", "-c", "user.email=example@localhost", "-C", str(root)]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "base"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True, encoding="utf-8"
    ).stdout.strip()
    issue = "total in calc.py must return the sum of its arguments. It does not."
    source = SourceDistribution("calc", "1", sha256="")
    task = Task(root.name, "example/calc", commit, "", "", issue, fail_to_pass=(), pass_to_pass=(), environment=source)
    spec = SandboxSpec(root, env={"PATH": f"{sys.base_prefix}/bin:/usr/bin:/bin"})
    return Problem(task, spec, "from calc import total; assert total(17, 5) == 22")


# --- An episode -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """What episodes are played with."""

    policy: Policy
    renderer: ChatRenderer
    backend: SandboxBackend


async def play(problem: Problem, world: World, name: str) -> Trajectory:
    """One episode as one flat sequence of tokens: sampled tokens as sampled, observations appended, never merged."""
    token_ids = world.renderer.opening(opening_messages(problem.task, AGENT))
    mask, logprobs = [False] * len(token_ids), [0.0] * len(token_ids)
    turns: list[Turn] = []
    stop_reason, patch = StopReason.TURN_LIMIT, ""
    async with world.backend.create(with_tools(problem.spec, AGENT.window_lines)) as sandbox:
        for index in range(AGENT.max_turns):
            if len(token_ids) + AGENT.max_response_tokens > AGENT.context_tokens:
                stop_reason = StopReason.CONTEXT_LIMIT
                break
            # Temperature 1 and nothing cut off: the loss's ratio only holds for the policy's own distribution.
            seed = zlib.crc32(f"{name}/{index}".encode())
            sampling = Sampling(AGENT.max_response_tokens, tuple(world.renderer.stop_token_ids), seed)
            sample = await world.policy.sample(token_ids, sampling, session=name)
            response = world.renderer.decode(sample.token_ids)
            seen = await act(sandbox, response, AGENT)
            span = (len(token_ids), len(token_ids) + len(sample.token_ids))
            ran = (seen.command, seen.format_error, seen.text, seen.exit_code)
            turns.append(Turn(index, response, *ran, *span, sample.policy_version, sample_s=0.0, exec_s=seen.exec_s))
            observed = [] if seen.submitted else world.renderer.observation(seen.text, stopped=sample.stopped)
            token_ids = [*token_ids, *sample.token_ids, *observed]
            mask += [True] * len(sample.token_ids) + [False] * len(observed)
            logprobs += [*sample.logprobs, *([0.0] * len(observed))]
            if seen.submitted:
                stop_reason, patch = StopReason.SUBMITTED, await take_patch(sandbox, problem.task.base_commit)
                break
    await world.policy.end_session(name)
    arrays = np.asarray(token_ids), np.asarray(mask), np.asarray(logprobs, np.float32)
    return Trajectory(name, problem.task.instance_id, *arrays, tuple(turns), stop_reason, patch)


async def pay(problem: Problem, trajectory: Trajectory, backend: SandboxBackend) -> Trajectory:
    """The terminal reward. The hidden test comes only now, to a fresh sandbox, where nothing but the patch arrives."""
    if not trajectory.patch:
        return replace(trajectory, rewards={"resolved": 0.0})
    async with backend.create(problem.spec) as sandbox:
        await sandbox.write("/tmp/patch", trajectory.patch.encode())
        result = await sandbox.exec(f'git apply /tmp/patch && python3 -c "{problem.hidden_test}"', timeout_s=30)
    return replace(trajectory, rewards={"resolved": float(result.exit_code == 0)})


async def collect(problems: Sequence[Problem], world: World, name: str) -> list[list[Trajectory]]:
    """A group of paid episodes for every problem, some at once."""
    at_once = asyncio.Semaphore(24)

    async def episode(problem: Problem, member: int) -> Trajectory:
        async with at_once:
            played = await play(problem, world, f"{name}/{problem.task.instance_id}/{member}")
            return await pay(problem, played, world.backend)

    groups = (asyncio.gather(*(episode(problem, member) for member in range(GROUP_SIZE))) for problem in problems)
    return list(await asyncio.gather(*groups))


# --- Learning ---------------------------------------------------------------------------------------------------------


def action_logprobs(model: Any, batch: Sequence[Trajectory]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The model's log-probs, the sampling policy's and the action mask, each [B, T - 1], padded on the right."""
    width = max(len(trajectory.token_ids_T) for trajectory in batch)

    def padded(name: str) -> torch.Tensor:
        rows = (getattr(trajectory, name) for trajectory in batch)
        return torch.from_numpy(np.stack([np.pad(row, (0, width - len(row))) for row in rows]))

    ids_BT = padded("token_ids_T")
    logprobs_BTV = model(ids_BT).logits[:, :-1].log_softmax(-1)  # those at t are about the token at t + 1
    logprobs_BT = logprobs_BTV.gather(-1, ids_BT[:, 1:].unsqueeze(-1)).squeeze(-1)
    return logprobs_BT, padded("behavior_logprobs_T")[:, 1:], padded("action_mask_T")[:, 1:]


def step(model: Any, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """One optimizer step, the gradient clipped at 1."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def fine_tune(model: Any, trajectories: list[Trajectory], lr: float, epochs: int, batch_size: int = 4) -> None:
    """Make the sampled tokens likelier, but not the turns that the scaffold could not read."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    for epoch in range(epochs):
        shuffled = random.Random(epoch).sample(trajectories, len(trajectories))
        for start in range(0, len(shuffled), batch_size):
            batch = shuffled[start : start + batch_size]
            logprobs_BT, _, mask_BT = action_logprobs(model, batch)
            for row, trajectory in enumerate(batch):
                for turn in trajectory.turns:
                    if turn.format_error is not None:
                        mask_BT[row, turn.start - 1 : turn.stop - 1] = False
            step(model, optimizer, imitation_loss(logprobs_BT, mask_BT))


def reinforce(
    model: Any, optimizer: torch.optim.Optimizer, groups: list[list[Trajectory]], batch_size: int = 16
) -> None:
    """DAPO: one advantage an episode, from its own group; the mean over all tokens; asymmetric clip; no KL."""
    trajectories = [trajectory for group in groups for trajectory in group]
    advantages = torch.cat([group_advantages([trajectory.reward for trajectory in group]) for group in groups])
    # Where all members of a group fare alike there is nothing to learn. No episode is dropped for any other reason:
    # those that ran out of turns are the examples that teach the agent out of loops.
    chosen = nonzero_advantages(advantages).nonzero().flatten().tolist()
    random.Random(0).shuffle(chosen)
    for start in range(0, len(chosen), batch_size):
        batch = chosen[start : start + batch_size]
        logprobs_BT, behavior_BT, mask_BT = action_logprobs(model, [trajectories[index] for index in batch])
        found = dapo_loss(logprobs_BT, behavior_BT, advantages[batch], mask_BT, clip_low=CLIP_LOW, clip_high=CLIP_HIGH)
        step(model, optimizer, found.loss)


# --- A base model, since none can be assumed at hand ------------------------------------------------------------------


def clumsy(session: str, turn: int) -> str:
    """A demonstrator that knows the tools but not the answer: any operator, and now and then no command at all."""
    chance = random.Random(session)
    script = [
        "I look.\n```command\nopen calc.py\n```",
        f"I repair it.\n```command\nedit 2:2 '    return a {chance.choice(OPERATORS)} b'\n```",
        "Done.\n```command\nsubmit\n```",
    ]
    if chance.random() < 0.4:
        script.insert(chance.randrange(3), "I wonder what to do.")
    return script[min(turn, len(script) - 1)]


def make_tokenizer(problems: Sequence[Problem]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of the words that occur, with the ChatML template."""
    texts = [message.content for problem in problems for message in opening_messages(problem.task, AGENT)]
    texts += [clumsy(str(session), turn) for session in range(9) for turn in range(4)]
    texts += [
        "user assistant [File: [Edited: /testbed/calc.py (2 lines total)]\n1:def total(a, b):\n2:    return a"
    ] * 9
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return fast


def make_model(vocabulary: int) -> Any:
    """A Qwen2 of two small layers with random weights, larger than usual: so few steps would not wake smaller ones."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    limits = {"vocab_size": vocabulary, "max_position_embeddings": AGENT.context_tokens}
    return Qwen2ForCausalLM(Qwen2Config(**limits, **sizes, **heads, initializer_range=0.1)).eval()


# --- The loop ---------------------------------------------------------------------------------------------------------


def report(name: str, groups: list[list[Trajectory]]) -> float:
    """Print how the episodes went and return Pass@1, the share of them that was paid."""
    episodes = [trajectory for group in groups for trajectory in group]
    solved = float(np.mean([trajectory.reward for trajectory in episodes]))
    submitted = np.mean([trajectory.stop_reason is StopReason.SUBMITTED for trajectory in episodes])
    turns = np.mean([len(trajectory.turns) for trajectory in episodes])
    print(f"{name:18} {solved:4.0%} solved, {submitted:4.0%} submitted, {turns:.1f} turns", flush=True)
    return solved


async def main(iterations: int = ITERATIONS) -> list[float]:
    """Base model, phase 1, phase 2. Prints how each did and returns their Pass@1."""
    torch.manual_seed(0)
    backend = LocalBackend()
    with tempfile.TemporaryDirectory() as folder:
        problems = make_problems(Path(folder))
        tokenizer = make_tokenizer(problems)
        renderer = ChatRenderer(tokenizer)

        # The base model has imitated the clumsy and the lucky alike, as models learn from the internet.
        shown = await collect(problems, World(ScriptedPolicy(clumsy, tokenizer), renderer, backend), "shown")
        model = make_model(len(tokenizer))
        fine_tune(model, [trajectory for group in shown for trajectory in group], lr=3e-3, epochs=10)

        world = World(TorchPolicy(copy.deepcopy(model), context_tokens=AGENT.context_tokens), renderer, backend)
        groups = await collect(problems, world, "base")
        solved = [report("base model", groups)]
        kept = [trajectory for group in groups for trajectory in group if trajectory.reward == 1]
        fine_tune(model, kept, lr=2e-4, epochs=2)

        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.1)
        for iteration in range(iterations + 1):
            await world.policy.update_weights(model.state_dict(), version=iteration + 1)
            groups = await collect(problems, world, f"iteration-{iteration}")
            solved.append(report(f"after iteration {iteration}" if iteration else "after phase 1", groups))
            if iteration < iterations:
                reinforce(model, optimizer, groups)
        await world.policy.close()
        await backend.close()
    return solved


if __name__ == "__main__":
    asyncio.run(main())
