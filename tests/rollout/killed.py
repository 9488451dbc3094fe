"""Plays one episode and kills itself, the hard way, while the response of turn 2 is being sampled."""

import asyncio
import os
import pickle
import signal
import sys
from pathlib import Path

from world import CONFIG, HistoryPolicy, make_tokenizer

from turnwise.agent import ChatRenderer
from turnwise.rollout import Collector, EpisodeRequest, FixedEnvironment
from turnwise.sandbox import LocalBackend
from turnwise.store import Journal


async def main(folder: Path) -> None:
    task, spec, keys, script = pickle.loads((folder / "asked").read_bytes())
    tokenizer = make_tokenizer()

    def until_killed(session: str, turn: int) -> str:
        if turn == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return script[turn]

    with Journal.open(folder / "journal.sqlite", "recipe") as journal:
        collector = Collector(
            **{"policy": HistoryPolicy(until_killed, tokenizer), "renderer": ChatRenderer(tokenizer)},
            **{"backend": LocalBackend(), "environments": FixedEnvironment(spec), "journal": journal},
            **{"agent_config": CONFIG, "seed": 5, "concurrency": 1},
        )
        await collector.collect([EpisodeRequest(key, task) for key in keys])


asyncio.run(main(Path(sys.argv[1])))
