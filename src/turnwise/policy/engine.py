"""Continuous batching: every step feeds each running request its next tokens and samples where a response goes on.

Single-threaded and synchronous: `torch_policy` runs it in a worker thread.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from turnwise.errors import PolicyError, TurnwiseError
from turnwise.policy.attention import Row
from turnwise.policy.packed_model import PackedModel
from turnwise.policy.protocol import changed_decoding
from turnwise.policy.sampler import decoding_logits, draw, logprobs, uniforms
from turnwise.policy.slots import SlotTable
from turnwise.types import Sample, Sampling

Deliver = Callable[[Any], None]  # called once, with the result or with the TurnwiseError in its place


@dataclass(eq=False)
class Request:
    """One response being made. `deliver` is called once, with the sample or with why there is none."""

    session: str
    prompt: NDArray[np.int32]
    sampling: Sampling
    deliver: Deliver
    slot: int = -1
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    noise: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class EngineStats:
    """What the engine did so far: `prompt_tokens` were asked for, `reused_tokens` of them were held or copied."""

    steps: int = 0
    computed_tokens: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    sampled_tokens: int = 0


@dataclass(frozen=True)
class WeightUpdate:
    """New weights waiting for the running requests to end."""

    state: Mapping[str, Tensor]
    version: int
    deliver: Deliver


class Engine:
    """Requests in, samples out, one `step` at a time.

    At most `prefill_tokens` prompt tokens are computed a step, so that responses under way go on beside long prompts.
    """

    def __init__(self, model: PackedModel, slots: int, context_tokens: int, prefill_tokens: int) -> None:
        self._model = model
        self._table = SlotTable(slots, context_tokens)
        self._prefill_tokens = prefill_tokens
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._updates: deque[WeightUpdate] = deque()
        self.version = 0
        self.stats = EngineStats()

    @property
    def is_idle(self) -> bool:
        """Whether a step would have nothing to do."""
        return not (self._waiting or self._running or self._updates)

    def submit(self, request: Request) -> None:
        """Queue a request. A session has one at a time: a second one fails at once."""
        if any(other.session == request.session for other in (*self._running, *self._waiting)):
            request.deliver(PolicyError(f"session {request.session} already has a request under way"))
            return
        request.noise = uniforms(request.sampling.seed, request.sampling.max_tokens)
        self._waiting.append(request)

    def cancel(self, request: Request) -> None:
        """Drop the request if it is still under way; nothing is delivered."""
        if request in self._running:
            self._running.remove(request)
            self._table.release(request.slot)
        elif request in self._waiting:
            self._waiting.remove(request)

    def end_session(self, session: str) -> None:
        """Free what the session holds; its request under way, if any, fails."""
        for request in [r for r in (*self._running, *self._waiting) if r.session == session]:
            self.cancel(request)
            request.deliver(PolicyError(f"session {session} was ended while its request was under way"))
        self._table.end(session)

    def update_weights(self, update: WeightUpdate) -> None:
        """Load new weights once the running requests have ended; waiting ones then start on the new."""
        self._updates.append(update)

    def fail(self, error: TurnwiseError) -> None:
        """Give every request and update under way the error and forget every key and value."""
        waiting: list[Request | WeightUpdate] = [*self._running, *self._waiting, *self._updates]
        self._running, self._waiting, self._updates = [], deque(), deque()
        self._table.clear()
        self._model.forget()
        for caller in waiting:
            caller.deliver(error)

    def step(self) -> None:
        """Admit what can start, run the model once, hand out what is finished."""
        with torch.inference_mode():
            if self._updates and not self._running:
                self._load(self._updates.popleft())
            if not self._updates:
                self._admit()
            if self._running:
                self._run()

    def _load(self, update: WeightUpdate) -> None:
        try:
            self._model.load(update.state)
        except TurnwiseError as error:
            update.deliver(error)
            return
        self._table.clear()
        self.version = update.version
        update.deliver(None)

    def _admit(self) -> None:
        for request in list(self._waiting):
            claim = self._table.claim(request.session, request.prompt)
            if claim is None:
                continue
            if claim.donor is not None:
                self._model.store.copy_prefix(claim.donor, claim.slot, claim.held)
            request.slot = claim.slot
            self._waiting.remove(request)
            self._running.append(request)
            self._count(prompt_tokens=len(request.prompt), reused_tokens=claim.held)

    def _run(self) -> None:
        fed = self._plan()
        rows = [row for _, row in fed]
        token_ids = [token for row in rows for token in self._table.take(row.slot, row.count)]
        ready, wanted, end = [], [], 0
        for request, row in fed:
            end += row.count
            if not self._table.pending(row.slot):
                ready.append(request)
                wanted.append(end - 1)
        logits_BV = self._model.forward(rows, token_ids, wanted)
        self._count(steps=1, computed_tokens=len(token_ids), sampled_tokens=len(ready))
        if ready:
            self._sample(ready, logits_BV)

    def _plan(self) -> list[tuple[Request, Row]]:
        """What each running request is fed: first those with one token, families first; then prompts in the budget."""
        budget = self._prefill_tokens
        singles: list[Request] = []
        chunks: list[tuple[Request, Row]] = []
        for request in self._running:
            pending = self._table.pending(request.slot)
            if pending == 1:
                singles.append(request)
            elif budget > 1:
                count = min(pending, budget)
                chunks.append((request, Row(request.slot, int(self._table.computed[request.slot]), count)))
                budget -= count
        return self._single_rows(singles) + chunks

    def _single_rows(self, requests: Sequence[Request]) -> list[tuple[Request, Row]]:
        """Rows of one token, ordered by family; whoever is alone in its family, or hasn't computed it, has none."""
        families = [self._table.family(request.slot) for request in requests]
        starts = [int(self._table.computed[request.slot]) for request in requests]
        sizes = Counter(family for (family, shared), start in zip(families, starts, strict=True) if start >= shared)
        rows = [
            Row(request.slot, start, 1, family, shared)
            if sizes[family] > 1 and start >= shared
            else Row(request.slot, start, 1)
            for request, (family, shared), start in zip(requests, families, starts, strict=True)
        ]
        return sorted(zip(requests, rows, strict=True), key=lambda fed: -fed[1].family)

    def _sample(self, ready: Sequence[Request], logits_BV: Tensor) -> None:
        decoding_BV = logits_BV
        changed = [i for i, request in enumerate(ready) if changed_decoding(request.sampling)]
        if changed:
            decoding_BV = logits_BV.clone()
            for i in changed:
                history = [*ready[i].prompt.tolist(), *ready[i].token_ids]
                decoding_BV[i] = decoding_logits(logits_BV[i], history, ready[i].sampling)
        tokens = draw(decoding_BV, [float(request.noise[len(request.token_ids)]) for request in ready])
        for request, token, logprob in zip(ready, tokens, logprobs(logits_BV, tokens), strict=True):
            self._advance(request, token, logprob)

    def _advance(self, request: Request, token: int, logprob: float) -> None:
        request.token_ids.append(token)
        request.logprobs.append(logprob)
        stopped = token in request.sampling.stop_token_ids
        if not stopped and len(request.token_ids) < request.sampling.max_tokens:
            self._table.append(request.slot, token)
            return
        self._running.remove(request)
        self._table.release(request.slot)
        request.deliver(Sample(tuple(request.token_ids), tuple(request.logprobs), self.version, stopped))

    def _count(self, **more: int) -> None:
        self.stats = replace(self.stats, **{name: getattr(self.stats, name) + n for name, n in more.items()})
