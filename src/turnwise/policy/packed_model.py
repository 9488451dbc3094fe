"""A Hugging Face causal LM that takes the new tokens of many sequences as one packed row."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from turnwise.errors import CheckpointError, InputError
from turnwise.policy.attention import ATTENTION_NAME, Desk, Row, StepPlan, find_families, packed_attention
from turnwise.policy.kv_store import KVStore

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE_TOKENS = 24


class PackedModel:
    """Owns the model from here on: switches its attention to the packed one and checks that nothing else changed.

    Raises CheckpointError for an architecture whose log-probabilities differ when it is run packed and in steps.
    """

    def __init__(self, model: "PreTrainedModel", slots: int) -> None:
        self._model = model.requires_grad_(False)
        self._model.train(False)
        self._slots = slots
        self._desk = Desk()
        self._device = next(model.parameters()).device
        with torch.inference_mode():
            expected = self._reference()
        self._switch_attention()
        self._lay_out_weights()
        self._check(expected)
        self.store = KVStore(slots)

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return int(self._model.config.get_text_config().vocab_size)

    @property
    def max_positions(self) -> int:
        """The longest sequence that the checkpoint's configuration allows, in tokens."""
        return int(self._model.config.get_text_config().max_position_embeddings)

    def forward(self, rows: Sequence[Row], token_ids: Sequence[int], wanted: Sequence[int]) -> Tensor:
        """Run the rows' new tokens (in their order, packed) and return float32 logits (len(wanted), vocabulary).

        Rows of one token come first, of these the families first. `wanted` are indices of packed tokens whose
        next-token logits are needed.
        """
        self.store.reserve(max(row.start + row.count for row in rows))
        positions = self._tensor([p for row in rows for p in range(row.start, row.start + row.count)])
        slots = self._tensor([row.slot for row in rows for _ in range(row.count)])
        singles = sum(row.count == 1 for row in rows)
        families = find_families(rows[:singles])
        self._desk.plan = StepPlan(self.store, list(rows), slots, positions, singles, families)
        output = self._model(
            input_ids=self._tensor(token_ids)[None],
            position_ids=positions[None],
            use_cache=False,
            logits_to_keep=self._tensor(wanted),
        )
        logits: Tensor = output.logits[0]
        return logits.float()

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Copy new weights in and forget every key and value. A state that doesn't fit changes nothing (InputError)."""
        own = self._model.state_dict()
        covered = {own[name].data_ptr() for name in state if name in own}
        unknown = sorted(set(state) - set(own))
        missing = sorted(name for name, tensor in own.items() if tensor.data_ptr() not in covered)
        misfit = sorted(name for name in state if name in own and state[name].shape != own[name].shape)
        for problem, names in (("unknown", unknown), ("missing", missing), ("of another shape", misfit)):
            if names:
                raise InputError(f"weights that don't fit the model: {len(names)} {problem}, such as {names[0]!r}")
        with torch.no_grad():
            for name, tensor in state.items():
                own[name].copy_(tensor)
        self.forget()

    def forget(self) -> None:
        """Drop every key and value."""
        self.store = KVStore(self._slots)

    def _tensor(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self._device)

    def _switch_attention(self) -> None:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        ALL_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, packed_attention)
        self._model.set_attn_implementation(ATTENTION_NAME)
        if self._model.config._attn_implementation != ATTENTION_NAME:
            raise CheckpointError(f"{type(self._model).__name__} does not let its attention be chosen")
        for module in self._model.modules():
            if hasattr(module, "layer_idx"):
                module.turnwise_desk = self._desk  # type: ignore[assignment]  # any object may hang on a module

    def _lay_out_weights(self) -> None:
        """Store linear layers' weights input-major: on CPUs a product with a few dozen rows is then some 10% faster.

        Values and shapes stay. An embedding that is also the output layer stays too: it is looked up by row.
        """
        if self._device.type != "cpu":
            return
        tied = self._model.get_input_embeddings().weight
        for module in self._model.modules():
            if isinstance(module, torch.nn.Linear) and module.weight is not tied:
                module.weight.data = module.weight.data.t().contiguous().t()

    def _probe_tokens(self) -> list[int]:
        return [(7 * index + 3) % self.vocabulary for index in range(PROBE_TOKENS)]

    def _reference(self) -> Tensor:
        logits: Tensor = self._model(input_ids=self._tensor(self._probe_tokens())[None], use_cache=False).logits[0]
        return torch.log_softmax(logits[-2:].float(), -1)

    def _probe(self) -> Tensor:
        """The probe's last log-probs (2, V), run packed beside a second sequence: a chunk, then single steps."""
        self.store = KVStore(2)
        tokens, last = self._probe_tokens(), PROBE_TOKENS - 1
        with torch.inference_mode():
            self.forward([Row(0, 0, last - 1), Row(1, 0, 2)], tokens[: last - 1] + tokens[3:5], [])
            logits = [
                self.forward([Row(0, at, 1), Row(1, 3 + at - last, 1)], [tokens[at], 5], [0]) for at in (last - 1, last)
            ]
        return torch.log_softmax(torch.cat(logits), -1)

    def _check(self, expected: Tensor) -> None:
        """Compare the packed probe with the model's own log-probabilities."""
        try:
            found = self._probe()
        except Exception as error:  # foreign code that may fail in any way on what it wasn't written for
            raise CheckpointError(f"{type(self._model).__name__} can't be run packed: {error!r}") from error
        difference = (found - expected).abs().max().item()
        dtype = next(self._model.parameters()).dtype
        bound = 1e-4 if dtype == torch.float32 else 0.1
        if not difference <= bound * max(1.0, expected.abs().max().item() / 10):
            raise CheckpointError(
                f"{type(self._model).__name__} can't be sampled by the embedded engine: packed, its log-probabilities "
                f"differ by {difference:.2g} from the model's own"
            )
