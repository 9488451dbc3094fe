"""A Hugging Face causal LM taken apart into its trunk (hidden states) and its head (vocabulary projection)."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from turnwise.errors import CheckpointError


class ScoringModel:
    """A causal LM that scores chosen positions only. Raises CheckpointError when its head is no plain projection.

    The network stays in evaluation mode: dropout would make the ratio compare two different networks.
    """

    def __init__(self, network: Any, device: str) -> None:
        self.network = network.to(device).eval()
        self.max_tokens = max_positions(network.config)
        self.vocabulary = int(network.get_input_embeddings().weight.shape[0])
        self._check_head(device)

    @property
    def head(self) -> nn.Module:
        """The projection of hidden states onto the vocabulary."""
        head: nn.Module = self.network.get_output_embeddings()
        return head

    def hidden(self, input_ids_BT: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states [B, T, H]. Rows are padded on the right, where causal attention never looks."""
        states: torch.Tensor = self.network.base_model(input_ids=input_ids_BT, use_cache=False).last_hidden_state
        return states

    def _check_head(self, device: str) -> None:
        """Some architectures scale or cap the logits after the projection; they would be scored wrongly in silence."""
        probe = torch.arange(min(8, self.vocabulary), device=device).unsqueeze(0)
        with torch.no_grad():
            whole = self.network(input_ids=probe, use_cache=False).logits
            ours = self.head(self.hidden(probe))
        if not torch.allclose(whole, ours, rtol=1e-3, atol=1e-3 * float(whole.abs().max())):
            raise CheckpointError(
                f"{type(self.network).__name__} changes its logits after the vocabulary projection (scaling or soft "
                "capping), which the trainer's log-probs do not follow; choose another architecture"
            )


def load_network(path: str | Path) -> Any:
    """Load a Hugging Face causal LM in float32. Raises CheckpointError with the reason when it cannot be."""
    try:
        with no_progress_bars():
            return AutoModelForCausalLM.from_pretrained(str(path), dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise CheckpointError(f'no causal language model could be loaded from "{path}": {error}') from error


def max_positions(config: Any) -> int:
    """Return the number of positions a model is made for, YaRN and other scaled rotary embeddings included."""
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    stretched = rope.get("factor", 0) * rope.get("original_max_position_embeddings", 0)
    known = max(int(getattr(text, "max_position_embeddings", None) or 0), int(stretched))
    return known or sys.maxsize


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep the library's bars for loading and saving shards off a terminal that shows the run's own progress."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
