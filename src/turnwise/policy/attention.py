"""Attention of one packed step: tokens of many sequences side by side, each sequence attending to its own slot.

The function is registered with transformers under `ATTENTION_NAME`; every architecture whose layers go through the
attention interface (https://huggingface.co/docs/transformers/en/attention_interface) then computes its projections on
one packed row (1, N) with no padding, and only this function knows which token belongs to whom.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from turnwise.policy.kv_store import KVStore, LayerKV

ATTENTION_NAME = "turnwise_packed"
# The kernel behind scaled_dot_product_attention on CPUs: the public function doesn't hand out the log-sum-exp.
_attention_with_lse = torch._scaled_dot_product_flash_attention_for_cpu


@dataclass(frozen=True)
class Row:
    """The `count` new tokens of one sequence in this step, at positions `start`… of `slot`.

    Rows of one `family` (-1: none) have the same first `shared` tokens, all of them computed.
    """

    slot: int
    start: int
    count: int
    family: int = -1
    shared: int = 0


@dataclass
class StepPlan:
    """Where a step's packed tokens belong: rows of one token (`singles`) first, and of these the families first.

    `families` holds the family rows run by run.
    """

    store: KVStore
    rows: list[Row]
    slots: Tensor
    positions: Tensor
    singles: int
    families: list[list[Row]]
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


def find_families(rows: Sequence[Row]) -> list[list[Row]]:
    """The runs of rows of one family, in order."""
    return [list(run) for family, run in groupby(rows, key=lambda row: row.family) if family >= 0]


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
    kv = plan.store.write(cast(int, module.layer_idx), plan.slots, plan.positions, key, value)
    _, heads, tokens, size = query.shape
    kv_heads = key.shape[1]
    grouped = query.transpose(1, 2).reshape(tokens, kv_heads, heads // kv_heads, size)
    in_families = 0
    parts: list[Tensor] = []
    if plan.families and sliding_window is None and query.device.type == "cpu" and value.shape[-1] == size:
        in_families = sum(map(len, plan.families))
        parts.append(_family_rows(plan, kv, grouped, scaling))
    parts += _single_rows(plan, kv, grouped, in_families, scaling, sliding_window)
    offset = plan.singles
    for index in range(plan.singles, len(plan.rows)):
        count = plan.rows[index].count
        queries = grouped[offset : offset + count]
        parts.append(_long_row(plan, index, kv, queries, scaling, sliding_window))
        offset += count
    return torch.cat(parts).view(1, tokens, heads, -1), None


def _family_rows(plan: StepPlan, kv: LayerKV, grouped: Tensor, scaling: float | None) -> Tensor:
    """Attention in two parts for rows that share a prefix, merged by their log-sum-exp (as in FlashDecoding).

    The prefix's keys are read once for the whole family, by one product with all of its queries; from the first row's
    slot, as equal tokens have equal keys. What is each row's own comes row by row.
    """
    prefix, prefix_lse, own, own_lse = [], [], [], []
    first = 0
    for family in plan.families:
        count, (_, kv_heads, per_kv, size) = len(family), grouped.shape
        queries = grouped[first : first + count]
        stacked = queries.transpose(0, 1).reshape(1, kv_heads, count * per_kv, size)
        keys, values = kv.view(family[0].slot, 0, family[0].shared)
        answer, lse = _attention_with_lse(stacked, keys, values, scale=scaling)
        prefix.append(answer.view(kv_heads, count, per_kv, size).transpose(0, 1))
        prefix_lse.append(lse.view(kv_heads, count, per_kv).transpose(0, 1))
        for row, query in zip(family, torch.split(queries, 1), strict=True):
            keys, values = kv.view(row.slot, row.shared, row.start + 1)
            answer, lse = _attention_with_lse(query, keys, values, scale=scaling)
            own.append(answer)
            own_lse.append(lse)
        first += count
    of_prefix = torch.sigmoid(torch.cat(prefix_lse) - torch.cat(own_lse))[..., None]
    return torch.lerp(torch.cat(own), torch.cat(prefix), of_prefix.to(grouped.dtype))


def _single_rows(
    plan: StepPlan, kv: LayerKV, grouped: Tensor, first: int, scaling: float | None, window: int | None
) -> list[Tensor]:
    parts = []
    queries = torch.split(grouped[first : plan.singles], 1)
    for row, query in zip(plan.rows[first : plan.singles], queries, strict=False):
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
