from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast, Qwen2Config

from turnwise.agent import load_tokenizer
from turnwise.errors import CheckpointError

STANDIN = Path(__file__).parents[2] / "models" / "standin"


def test_a_tokenizer_splits_text_as_it_was_trained_to_whatever_the_models_type() -> None:
    text = "345:        return take_nth(n, seq)\n"
    assert Qwen2Config.from_pretrained(STANDIN).model_type == "qwen2"
    loaded, meant = load_tokenizer(STANDIN), PreTrainedTokenizerFast.from_pretrained(STANDIN)
    assert loaded.encode(text) == meant.encode(text)
    assert loaded.encode("345")[1:] == []  # a number is one token


def test_a_folder_without_a_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=tmp_path.name):
        load_tokenizer(tmp_path)
