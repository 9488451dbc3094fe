"""Which session holds which slot, what tokens each slot holds, and who shares a prefix with whom. Plain numpy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WORTH_WAITING_TOKENS = 16
WORTH_SHARING_TOKENS = 64


@dataclass(frozen=True)
class Claim:
    """A slot given to a request: its first `held` tokens are there, once copied from slot `donor` when one is named."""

    slot: int
    held: int
    donor: int | None = None


class SlotTable:
    """The tokens of every slot: the first `computed` have keys and values, the first `known` are given.

    A slot is busy while a request of its session runs, idle between turns, ended after its session. Ended and idle
    slots go on serving as donors of their prefixes until they are given away, the ended and longest unused first.
    """

    def __init__(self, slots: int, context_tokens: int) -> None:
        self._tokens = np.zeros((slots, context_tokens), np.int32)
        self.known = np.zeros(slots, np.int64)
        self.computed = np.zeros(slots, np.int64)
        self._family = np.full(slots, -1, np.int64)
        self._family_tokens = np.zeros(slots, np.int64)
        self._families = 0
        self._busy = np.zeros(slots, np.bool_)
        self._last_used = np.zeros(slots, np.int64)
        self._clock = 0
        self._slot_of: dict[str, int] = {}
        self._session_of: dict[int, str] = {}

    def claim(self, session: str, prompt_T: NDArray[np.int32]) -> Claim | None:
        """A slot for the session's next request, marked busy; None when it has to wait.

        It waits while every slot is busy, and while another request is computing a prefix that this one can copy.
        The last token of the prompt is never counted as held: its logits are what the request is after.
        """
        own = self._slot_of.get(session)
        if own is None and self._busy.all():
            return None
        shared_S = self._shared(prompt_T[:-1])
        held_S = np.minimum(shared_S, self.computed)
        if own is None:
            coming_S = np.where(self._busy, np.minimum(shared_S, self.known), 0)
            if coming_S.max() >= held_S.max() + WORTH_WAITING_TOKENS:
                return None
        held = int(held_S.max())
        donor = int(held_S.argmax()) if held else None
        slot = self._give_away(donor) if own is None else own
        if own is None:
            self._join_family(slot, shared_S, len(prompt_T) - 1)
        elif held < self._family_tokens[slot]:
            self._leave_family(slot)
        self._occupy(slot, session, prompt_T, held)
        return Claim(slot, held, donor if held_S[slot] < held else None)

    def family(self, slot: int) -> tuple[int, int]:
        """Which family of equal openings the slot's sequence is of (-1: none), and how long that opening is."""
        return int(self._family[slot]), int(self._family_tokens[slot])

    def append(self, slot: int, token: int) -> None:
        """One more known token."""
        self._tokens[slot, self.known[slot]] = token
        self.known[slot] += 1

    def pending(self, slot: int) -> int:
        """How many known tokens have no keys and values."""
        return int(self.known[slot] - self.computed[slot])

    def take(self, slot: int, count: int) -> list[int]:
        """The next `count` pending tokens, counted as computed from now on."""
        start = int(self.computed[slot])
        self.computed[slot] = start + count
        taken: list[int] = self._tokens[slot, start : start + count].tolist()
        return taken

    def release(self, slot: int) -> None:
        """The slot's request is over; the session keeps what is computed until the slot is given away."""
        self._busy[slot] = False
        self.known[slot] = self.computed[slot]
        self._clock += 1
        self._last_used[slot] = self._clock

    def end(self, session: str) -> None:
        """The session is over: its slot is the first to be given away."""
        slot = self._slot_of.pop(session, None)
        if slot is not None:
            del self._session_of[slot]

    def holds(self, session: str) -> bool:
        """Whether anything is kept for the session."""
        return session in self._slot_of

    def clear(self) -> None:
        """Nothing is held any more."""
        self.known[:] = self.computed[:] = self._last_used[:] = self._family_tokens[:] = 0
        self._busy[:] = False
        self._family[:] = -1
        self._slot_of.clear()
        self._session_of.clear()

    def _shared(self, prompt_T: NDArray[np.int32]) -> NDArray[np.int64]:
        """Per slot, how many leading tokens of its row equal the prompt's (known or not)."""
        differs = self._tokens[:, : len(prompt_T)] != prompt_T
        first = differs.argmax(axis=1) if len(prompt_T) else np.zeros(len(differs), np.int64)
        none_differs = ~differs.any(axis=1)
        return np.where(none_differs, len(prompt_T), first)

    def _join_family(self, slot: int, shared_S: NDArray[np.int64], opening_tokens: int) -> None:
        """Join the family with the longest opening that the new sequence starts with, or found one."""
        fitting_S = np.where((self._family >= 0) & (self._family_tokens <= shared_S), self._family_tokens, 0)
        if fitting_S.any():
            other = int(fitting_S.argmax())
            self._family[slot], self._family_tokens[slot] = self._family[other], self._family_tokens[other]
        elif opening_tokens >= WORTH_SHARING_TOKENS:
            self._families += 1
            self._family[slot], self._family_tokens[slot] = self._families, opening_tokens
        else:
            self._leave_family(slot)

    def _leave_family(self, slot: int) -> None:
        self._family[slot], self._family_tokens[slot] = -1, 0

    def _give_away(self, donor: int | None) -> int:
        """The slot to hand over: ended before idle, longest unused first, the donor last (within its kind)."""
        order = [
            (slot in self._session_of, slot == donor, self._last_used[slot], slot)
            for slot in np.flatnonzero(~self._busy).tolist()
        ]
        slot = int(min(order)[-1])
        evicted = self._session_of.pop(slot, None)
        if evicted is not None:
            del self._slot_of[evicted]
        return slot

    def _occupy(self, slot: int, session: str, prompt_T: NDArray[np.int32], held: int) -> None:
        self._tokens[slot, : len(prompt_T)] = prompt_T
        self.known[slot] = len(prompt_T)
        self.computed[slot] = held
        self._busy[slot] = True
        self._slot_of[session] = slot
        self._session_of[slot] = session
