"""Keys and values of many sequences: per layer two tensors (slots, kv_heads, capacity, head_dim) that grow."""

from dataclasses import dataclass

from torch import Tensor

CAPACITY_STEP = 256


@dataclass
class LayerKV:
    """One layer's store; a head's keys lie one after the other, as attention reads them."""

    keys: Tensor
    values: Tensor

    def view(self, slot: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Keys and values (1, kv_heads, stop - start, head_dim) of one slot, without a copy.

        `as_strided` because this runs per row and layer of every step: the same view by indexing takes far longer.
        """
        return _rows(self.keys, slot, start, stop), _rows(self.values, slot, start, stop)


def _rows(store: Tensor, slot: int, start: int, stop: int) -> Tensor:
    _, heads, capacity, size = store.shape
    head = capacity * size
    return store.as_strided(
        (1, heads, stop - start, size), (heads * head, head, size, 1), slot * heads * head + start * size
    )


class KVStore:
    """What the model remembers of each slot. A layer's tensors are made at its first write, in its own shape and type.

    Capacity grows to the longest sequence seen, so memory follows use: 2 * layers * slots * capacity * kv_heads *
    head_dim elements. Nothing is cleared between owners of a slot: what counts as held is the caller's knowledge.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._capacity = CAPACITY_STEP
        self._layers: dict[int, LayerKV] = {}

    @property
    def capacity(self) -> int:
        """Tokens that each slot can hold now."""
        return self._capacity

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` in every slot, keeping what is held."""
        if tokens <= self._capacity:
            return
        grown = max(-(-tokens // CAPACITY_STEP) * CAPACITY_STEP, self._capacity * 3 // 2)
        for kv in self._layers.values():
            kv.keys = _grow(kv.keys, grown)
            kv.values = _grow(kv.values, grown)
        self._capacity = grown

    def write(self, layer: int, slots: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> LayerKV:
        """Store N new tokens (1, kv_heads, N, head_dim) at their slots and positions."""
        if layer not in self._layers:
            self._layers[layer] = LayerKV(self._empty(keys), self._empty(values))
        kv = self._layers[layer]
        kv.keys[slots, :, positions] = keys[0].transpose(0, 1)
        kv.values[slots, :, positions] = values[0].transpose(0, 1)
        return kv

    def copy_prefix(self, source: int, target: int, tokens: int) -> None:
        """Give slot `target` the first `tokens` of slot `source`."""
        for kv in self._layers.values():
            kv.keys[target, :, :tokens] = kv.keys[source, :, :tokens]
            kv.values[target, :, :tokens] = kv.values[source, :, :tokens]

    def _empty(self, like: Tensor) -> Tensor:
        _, heads, _, size = like.shape
        return like.new_empty((self._slots, heads, self._capacity, size))


def _grow(store: Tensor, capacity: int) -> Tensor:
    slots, heads, held, size = store.shape
    grown = store.new_empty((slots, heads, capacity, size))
    grown[:, :, :held] = store
    return grown
