"""Attention of one packed step: tokens of many sequences side by side, each sequence attending to its own slot.

The function is registered with transformers under `ATTENTION_NAME`; every architecture whose layers go through the
attention interface (https://huggingface.co/docs/transformers/en/attention_interface) then computes its projections on
one packed row (1, N) with no padding, and only this function knows which token belongs to whom.
"""

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from turnwise.policy.kv_store import KVStore, LayerKV

ATTENTION_NAME = "turnwise_packed"


@dataclass(frozen=True)
class Row:
    """The `count` new tokens of one sequence in this step, at positions `start`… of `slot`."""

    slot: int
    start: int
    count: int


@dataclass
class StepPlan:
    """Where a step's packed tokens belong. Rows with one new token come first: they need no mask and no reordering."""

    store: KVStore
    rows: list[Row]
    places: Tensor
    singles: int
    masks: dict[tuple[int, int | None, int], Tensor] = field(default_factory=dict)

    def mask(self, index: int, window: int | None, heads_per_kv: int, like: Tensor) -> Tensor:
        """Additive causal mask (heads_per_kv * count, keys) of row `index`; made once a step, shared by the layers."""
        known = self.masks.get((index, window, heads_per_kv))
        if known is None:
            row = self.rows[index]
            first = first_visible(row.start, window)
            queries = torch.arange(row.start, row.start + row.count, device=like.device)[:, None]
            keys = torch.arange(first, row.start + row.count, device=like.device)[None, :]
            hidden = keys > queries if window is None else (keys > queries) | (keys <= queries - window)
            known = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, -torch.inf)
            known = known.repeat(heads_per_kv, 1)
            self.masks[(index, window, heads_per_kv)] = known
        return known


@dataclass
class Desk:
    """Where attention modules find the plan of the step under way: each holds it as `turnwise_desk`.

    Keyword arguments of the model's forward would be plainer, but not every architecture hands them down.
    """

    plan: StepPlan = field(init=False)


def first_visible(position: int, window: int | None) -> int:
    """The first position that a token at `position` attends to."""
    return 0 if window is None else max(0, position - window + 1)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Store the step's keys and values (1, kv_heads, N, d), answer `query` (1, heads, N, d): (1, N, heads, d).

    Query heads that share a key head are stacked as that head's queries, so keys and values are never repeated.
    """
    plan = cast(Desk, module.turnwise_desk).plan
    kv = plan.store.write(cast(int, module.layer_idx), plan.places, key, value)
    _, heads, tokens, size = query.shape
    kv_heads = key.shape[1]
    grouped = query.transpose(1, 2).reshape(tokens, kv_heads, heads // kv_heads, size)
    parts = _single_rows(plan, kv, grouped, scaling, sliding_window)
    offset = plan.singles
    for index in range(plan.singles, len(plan.rows)):
        count = plan.rows[index].count
        queries = grouped[offset : offset + count]
        parts.append(_long_row(plan, index, kv, queries, scaling, sliding_window))
        offset += count
    return torch.cat(parts).view(1, tokens, heads, -1), None


def _single_rows(
    plan: StepPlan, kv: LayerKV, grouped: Tensor, scaling: float | None, window: int | None
) -> list[Tensor]:
    parts = []
    for row, query in zip(plan.rows, torch.split(grouped[: plan.singles], 1), strict=False):
        keys, values = kv.view(row.slot, first_visible(row.start, window), row.start + 1)
        parts.append(scaled_dot_product_attention(query, keys, values, scale=scaling))
    return parts


def _long_row(
    plan: StepPlan, index: int, kv: LayerKV, queries: Tensor, scaling: float | None, window: int | None
) -> Tensor:
    row = plan.rows[index]
    count, kv_heads, per_kv, size = queries.shape
    keys, values = kv.view(row.slot, first_visible(row.start, window), row.start + row.count)
    stacked = queries.permute(1, 2, 0, 3).reshape(1, kv_heads, per_kv * count, size)
    mask = plan.mask(index, window, per_kv, queries)
    answer = scaled_dot_product_attention(stacked, keys, values, attn_mask=mask, scale=scaling)
    return answer.view(kv_heads, per_kv, count, -1).permute(2, 0, 1, 3)
