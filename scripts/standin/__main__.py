"""Make the stand-in base model from scratch: `python scripts/standin --out models/standin`.

Two phases on the functions behind the shipped tasks, the shipped bugs left out. First the knowledge: their source, read
as the tools show it, and repairs of fresh bugs, done with care. Then the manners: whole episodes by a careless
demonstrator, so that the model starts about where the paper's base checkpoint does: it can, but mostly does not.
"""

import argparse
import random
from collections.abc import Callable
from pathlib import Path

import torch
from corpus import Function, Reports, functions_of
from corruptions import shows_code
from demonstrations import PLACE, Carelessness, Demonstration, demonstrate, drill, fresh_bug, one_liners
from rich.console import Console
from tokenizer import train_tokenizer
from training import Sample, Schedule, fit, new_model
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from turnwise.agent import AgentConfig, ChatRenderer, Message, opening_messages
from turnwise.tasks import EnvironmentStore, frozen_path, read_tasks
from turnwise.types import Task

VOCABULARY = 4096
CONTEXT_WEIGHT = 0.3  # of an observation's tokens in the loss, beside 2 for a response's: reading teaches the code
RESPONSE_WEIGHT = 2.0
PLACE_WEIGHT = 12.0  # the one token of an episode that takes judgement: which line is wrong
DRILL_BUGS = 3
CAREFUL = Carelessness()
CARELESS = Carelessness(
    format_error=0.18, detour=0.1, wrong_line=0.66, second_try=0.35, early_submit=0.42, no_submit=0.4
)


class Writer:
    """Turns demonstrations into training samples, token by token as the scaffold would."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, task: Task, window_lines: int) -> None:
        self._tokenizer, self._task, self._window_lines = tokenizer, task, window_lines
        self._renderer = ChatRenderer(tokenizer)
        self._config = AgentConfig(system_prompt="compact", window_lines=window_lines)

    def episode(self, demonstration: Demonstration) -> Sample:
        """A whole episode; the opening has no weight, observations have little."""
        opening = self._renderer.opening(self.opening(demonstration.report))
        return self._sample(opening, 0.0, demonstration)

    def drill(self, demonstration: Demonstration) -> Sample:
        """A view and the repairs of all its bugs, with no episode around them."""
        look, *repairs = demonstration.exchanges
        opening = self._renderer.opening([Message("user", look.observation or "")])
        return self._sample(opening, CONTEXT_WEIGHT, Demonstration("", tuple(repairs)))

    def opening(self, report: str) -> list[Message]:
        """The opening messages of an episode on this report."""
        task = Task(**{**vars(self._task), "problem_statement": report})
        return opening_messages(task, self._config)

    def _sample(self, opening: list[int], opening_weight: float, demonstration: Demonstration) -> Sample:
        ids, weights = list(opening), [opening_weight] * len(opening)
        for exchange in demonstration.exchanges:
            said = self._tokenizer.encode(exchange.response, add_special_tokens=False)
            said.append(self._renderer.stop_token_ids[0])
            ids += said
            weights += self._weights(exchange.response, said)
            if exchange.observation is not None:
                seen = self._renderer.observation(exchange.observation)
                ids += seen
                weights += [CONTEXT_WEIGHT] * len(seen)
        return ids, weights

    def _weights(self, response: str, said: list[int]) -> list[float]:
        weights = [RESPONSE_WEIGHT] * len(said)
        if response.startswith(PLACE):
            first = len(self._tokenizer.encode(PLACE, add_special_tokens=False))
            for at in range(first, len(said)):
                if not self._tokenizer.decode([said[at]]).isdigit():
                    break
                weights[at] = PLACE_WEIGHT
        return weights


def main() -> None:
    """Read the arguments, train, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("models/standin"))
    parser.add_argument("--tasks", type=Path, default=frozen_path())
    parser.add_argument("--knowledge-minutes", type=float, default=45.0)
    parser.add_argument("--manners-minutes", type=float, default=8.0)
    parser.add_argument(
        "--from-knowledge",
        type=Path,
        help="go on from what the first phase saved; with --knowledge-minutes 0 straight to the second",
    )
    parser.add_argument("--window-lines", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    make(options, Console())


def make(options: argparse.Namespace, console: Console) -> None:
    """Both phases; the first one's result is kept beside the second's as `<out>-knowledge`."""
    tasks = read_tasks(options.tasks)
    functions = [f for f in functions_of(tasks, _sources(tasks), options.window_lines) if shows_code(f)]
    console.print(f"{len(functions)} functions, {sum(len(f.mutants) for f in functions)} fresh mutations to learn on")
    reports = Reports.of(functions)
    if options.from_knowledge:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(options.from_knowledge)
        model = Qwen2ForCausalLM.from_pretrained(options.from_knowledge, dtype=torch.float32)
    else:
        tokenizer = train_tokenizer(_texts(functions, reports, tasks[0], options), VOCABULARY)
        model = new_model(len(tokenizer), options.seed)
    writer = Writer(tokenizer, tasks[0], options.window_lines)
    if options.knowledge_minutes:
        console.print(
            f"knowledge: {options.knowledge_minutes:g} minutes, {model.num_parameters() / 1e6:.2f}M parameters"
        )
        draw = _knowledge(functions, reports, writer, options.window_lines)
        peak = 0.5 if options.from_knowledge else 1.0  # what is known already is forgotten at the full rate
        schedule = Schedule(options.knowledge_minutes, muon_lr=0.02 * peak, adamw_lr=3e-3 * peak)
        fit(model, draw, schedule, options.seed, _reporter(console))
        _save(model, tokenizer, options.out.with_name(options.out.name + "-knowledge"), torch.float32)
    console.print(f"manners: {options.manners_minutes:g} minutes")
    schedule = Schedule(options.manners_minutes, by_length=False, muon_lr=0.005, adamw_lr=8e-4)
    draw = _episodes(functions, reports, writer, options.window_lines, CARELESS)
    fit(model, draw, schedule, options.seed + 1, _reporter(console))
    _save(model, tokenizer, options.out, torch.float16)


def _sources(tasks: list[Task]) -> dict[str, Path]:
    store = EnvironmentStore()
    return {task.sdist.package: store.source(task.sdist) for task in tasks}


def _texts(functions: list[Function], reports: Reports, task: Task, options: argparse.Namespace) -> list[str]:
    """What the tokenizer learns its merges from: clean views, more often than not, and everything that is said."""
    rng = random.Random(options.seed)
    texts = []
    for function in functions:
        bug, report = fresh_bug(function, rng), reports.draw(function, rng)
        demonstration = demonstrate(function, bug, report, CAREFUL, options.window_lines, rng)
        texts += [e.response for e in demonstration.exchanges] + [e.observation or "" for e in demonstration.exchanges]
        texts += ["\n".join(function.file.lines[max(0, function.lineno - 5) : function.lineno + 20])] * 3
        texts += list(function.reports)
    config = AgentConfig(system_prompt="compact", window_lines=options.window_lines)
    return texts + [message.content for message in opening_messages(task, config)] * 20


def _knowledge(
    functions: list[Function], reports: Reports, writer: Writer, window_lines: int
) -> Callable[[random.Random], Sample]:
    careful = _episodes(functions, reports, writer, window_lines, CAREFUL)

    def draw(rng: random.Random) -> Sample:
        if rng.random() < 0.5:
            return careful(rng)
        function = rng.choice(functions)
        return writer.drill(drill(function, one_liners(function, rng, rng.randint(1, DRILL_BUGS)), window_lines))

    return draw


def _episodes(
    functions: list[Function], reports: Reports, writer: Writer, window_lines: int, care: Carelessness
) -> Callable[[random.Random], Sample]:
    def draw(rng: random.Random) -> Sample:
        function = rng.choice(functions)
        bug, report = fresh_bug(function, rng), reports.draw(function, rng)
        return writer.episode(demonstrate(function, bug, report, care, window_lines, rng))

    return draw


def _reporter(console: Console) -> Callable[[float, int, int, float], None]:
    smoothed = 0.0

    def report(minutes: float, step: int, tokens: int, loss: float) -> None:
        nonlocal smoothed
        smoothed = loss if step == 0 else 0.98 * smoothed + 0.02 * loss
        if step % 50 == 0:
            console.print(
                f"{minutes:5.1f} min  step {step:5d}  {tokens / minutes / 60:6.0f} tokens/s  loss {smoothed:.3f}"
            )

    return report


def _save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, dtype: torch.dtype) -> None:
    """In Hugging Face format; float16 halves the file and loses nothing that sampling would notice."""
    folder.mkdir(parents=True, exist_ok=True)
    model.to(dtype).save_pretrained(folder)
    model.to(torch.float32)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
