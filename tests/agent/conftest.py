"""Tokenizers made on the spot, with chat templates as published with well-known checkpoints."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CONTROL_TOKENS = {
    "gemma": ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    "llama31": ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    "mistral_v3": ("<s>", "</s>", "[INST]", "[/INST]"),
    "deepseek_r1_distill": ("<bos>", "<|end_of_sentence|>", "<|User|>", "<|Assistant|>"),
    "deepseek_v31": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "</think>"),  # noqa: RUF001
    "glm45": ("[gMASK]", "<|endoftext|>", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    "gpt_oss": ("<|startoftext|>", "<|return|>", "<|start|>", "<|message|>", "<|channel|>", "<|end|>"),
}


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[[str], PreTrainedTokenizerFast]:
    """A small byte-level BPE tokenizer with the named template and the control tokens that it writes."""

    def make(name: str) -> PreTrainedTokenizerFast:
        control = CONTROL_TOKENS.get(name, ("<|endoftext|>", "<|im_end|>", "<|im_start|>"))
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=list(control),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(
            ["def take_nth(n, seq):\n    return next(seq)\n```command\nls\n```\n"] * 9, trainer
        )
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=control[0], eos_token=control[1])
        fast.chat_template = (Path(__file__).parent / "templates" / f"{name}.jinja").read_text()
        return fast

    return make
