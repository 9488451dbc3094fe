"""The embedded policy: a Hugging Face causal LM in this process, its steps in one worker thread, asyncio outside."""

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from turnwise.errors import CheckpointError, InputError, PolicyError, TurnwiseError
from turnwise.policy.engine import Deliver, Engine, EngineStats, Request, WeightUpdate
from turnwise.policy.packed_model import PackedModel
from turnwise.policy.protocol import check_sampling, check_training_sampling
from turnwise.types import Sample, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Command = Callable[[Engine], None]


class TorchPolicy:
    """Samples many sessions in one continuous batch; a session's keys and values live from turn to turn.

    `model` belongs to the policy from here on. `max_sequences` sessions keep their keys and values at once; beyond it
    the longest unused idle one is computed again at its next turn, and requests wait while all are busy. `threads` are
    torch's for the worker; None leaves torch's own setting. On CPUs that sandboxes share, 1 is the safe choice: two
    threads that wait for each other stall when a sandbox takes a core from one of them.

    A policy for training refuses any sampling but plain temperature 1; with `for_training=False` (evaluation with
    decoding of its own) `Sampling` is served as asked. The checkpoint's generation_config is never read.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        *,
        max_sequences: int = 32,
        threads: int | None = None,
        context_tokens: int | None = None,
        prefill_tokens: int = 512,
        for_training: bool = True,
        sample_timeout_s: float = 600.0,
    ) -> None:
        packed = PackedModel(model, max_sequences)
        self._context_tokens = context_tokens or packed.max_positions
        if self._context_tokens > packed.max_positions:
            raise CheckpointError(f"the model has {packed.max_positions} positions; context_tokens is {context_tokens}")
        self._vocabulary = packed.vocabulary
        self._for_training = for_training
        self._sample_timeout_s = sample_timeout_s
        self._engine = Engine(packed, max_sequences, self._context_tokens, prefill_tokens)
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._closed = False
        self._worker = threading.Thread(target=self._work, args=(threads,), name="turnwise-policy", daemon=True)
        self._worker.start()

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        max_sequences: int = 32,
        threads: int | None = None,
        context_tokens: int | None = None,
        for_training: bool = True,
        sample_timeout_s: float = 600.0,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> Self:
        """Load a checkpoint folder (or a Hub name) of any causal LM. Raises CheckpointError when it can't be used."""
        from transformers import AutoModelForCausalLM

        try:
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"can't load a causal language model from {path}: {error}") from error
        torch.nn.Module.to(model, device)
        return cls(
            model,
            max_sequences=max_sequences,
            threads=threads,
            context_tokens=context_tokens,
            for_training=for_training,
            sample_timeout_s=sample_timeout_s,
        )

    @property
    def version(self) -> int:
        """The number last given to `update_weights`; 0 before."""
        return self._engine.version

    @property
    def stats(self) -> EngineStats:
        """What the engine did so far."""
        return self._engine.stats

    async def sample(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Sample:
        """Sample one response to the whole history; only the tokens that the session doesn't hold are computed.

        Raises InputError for a request that can't be served as asked (decoding parameters, unknown token ids, history
        plus max_tokens over the context), PolicyError when the engine fails, is closed, or takes too long.
        """
        prompt_T = self._checked(token_ids, sampling)
        future, deliver = self._future()
        request = Request(session, prompt_T, sampling, deliver)
        self._send(lambda engine: engine.submit(request))
        try:
            async with asyncio.timeout(self._sample_timeout_s):
                sample: Sample = await future
                return sample
        except TimeoutError:
            raise PolicyError(f"no response within {self._sample_timeout_s:g} s") from None
        finally:
            if future.cancelled() and not self._closed:
                self._send(lambda engine: engine.cancel(request))

    async def end_session(self, session: str) -> None:
        """Free what the session holds; an unknown session is no error."""
        if not self._closed:
            self._send(lambda engine: engine.end_session(session))

    async def update_weights(self, state: Mapping[str, Tensor], version: int) -> None:
        """Load new weights after the requests under way; InputError when they don't fit."""
        future, deliver = self._future()
        self._send(lambda engine: engine.update_weights(WeightUpdate(state, version, deliver)))
        await future

    async def close(self) -> None:
        """Stop the worker; requests still under way fail with PolicyError."""
        if not self._closed:
            self._closed = True
            self._commands.put(None)
            await asyncio.to_thread(self._worker.join)

    def _checked(self, token_ids: Sequence[int], sampling: Sampling) -> "np.ndarray[tuple[int], np.dtype[np.int32]]":
        check_sampling(sampling)
        if self._for_training:
            check_training_sampling(sampling)
        prompt_T = np.asarray(token_ids, np.int32)
        if not len(prompt_T) or prompt_T.min() < 0 or prompt_T.max() >= self._vocabulary:
            raise InputError(f"a history is 1 or more token ids from 0 to {self._vocabulary - 1}")
        if len(prompt_T) + sampling.max_tokens > self._context_tokens:
            raise InputError(
                f"{len(prompt_T)} tokens of history and max_tokens={sampling.max_tokens} don't fit "
                f"the context of {self._context_tokens}"
            )
        return prompt_T

    def _send(self, command: Command) -> None:
        if self._closed:
            raise PolicyError("the policy is closed")
        self._commands.put(command)

    @staticmethod
    def _future() -> tuple[asyncio.Future[Any], Deliver]:
        """A future of the running loop and the function by which the worker resolves it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def resolve(result: object) -> None:
            if future.done():
                return
            if isinstance(result, TurnwiseError):
                future.set_exception(result)
            else:
                future.set_result(result)

        def deliver(result: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(resolve, result)

        return future, deliver

    def _work(self, threads: int | None) -> None:
        """The worker: take what was asked, step, and never die with a caller waiting."""
        while self._take_commands():
            if threads is not None and torch.get_num_threads() != threads:
                torch.set_num_threads(threads)  # the number is the whole process's: a trainer may have changed it
            try:
                self._engine.step()
            except Exception as error:  # whatever it was, those who wait must hear of it
                failure = error if isinstance(error, PolicyError) else PolicyError(f"the engine failed: {error!r}")
                self._engine.fail(failure)
        self._engine.fail(PolicyError("the policy was closed"))

    def _take_commands(self) -> bool:
        """Run what was asked since the last step; with nothing to do, wait for something. False at the end."""
        while self._engine.is_idle or not self._commands.empty():
            command = self._commands.get()
            if command is None:
                return False
            command(self._engine)
        return True
