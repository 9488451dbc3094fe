"""Loading a checkpoint's tokenizer as the checkpoint means it."""

from pathlib import Path
from typing import TYPE_CHECKING

from turnwise.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(checkpoint: str | Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a checkpoint folder or hub id, as its own tokenizer.json says it where there is one.

    AutoTokenizer goes by the model's type: it gives a Qwen2 checkpoint Qwen2's way of splitting words, whatever its
    tokenizer was trained with, and says nothing. Raises CheckpointError when none can be loaded.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    loader = PreTrainedTokenizerFast if (Path(checkpoint) / "tokenizer.json").is_file() else AutoTokenizer
    try:
        tokenizer: PreTrainedTokenizerBase = loader.from_pretrained(str(checkpoint))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"no tokenizer can be loaded from {str(checkpoint)!r}: {error}") from error
    return tokenizer
