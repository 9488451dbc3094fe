"""What episodes need beside a sandbox: a tokenizer made on the spot and a policy whose script survives a kill."""

from collections.abc import Callable, Mapping, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from turnwise.agent import AgentConfig, ChatRenderer
from turnwise.types import Sample, Sampling

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CONFIG = AgentConfig(
    system_prompt="compact", window_lines=24, max_turns=8, context_tokens=8_000, max_response_tokens=400
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes are its tokens, beside ChatML's control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(CONTROL)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    fast.chat_template = CHATML
    return fast


def command(text: str) -> str:
    return f"Next.\n```command\n{text}\n```"


FIX = command("sed -i 's/a - b/a + b/' calc.py")
SUBMIT = command("submit")


class HistoryPolicy:
    """Says `script(session, turn)`, where the turn is read off the history: a resumed episode goes on in the script.

    `asked` lists the (session, turn, seed) of every response that was asked for. Log-probs are -turn.
    """

    def __init__(self, script: Callable[[str, int], str], tokenizer: PreTrainedTokenizerFast) -> None:
        self._script = script
        self._tokenizer = tokenizer
        self._stop = ChatRenderer(tokenizer).stop_token_ids[0]
        self.asked: list[tuple[str, int, int]] = []
        self.ended: list[str] = []
        self.version = 7

    async def sample(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Sample:
        turn = (list(token_ids).count(self._stop) - 2) // 2  # of the opening, then two for every turn
        self.asked.append((session, turn, sampling.seed))
        said = self._tokenizer.encode(self._script(session, turn), add_special_tokens=False)
        tokens = tuple([*said, self._stop][: sampling.max_tokens])
        return Sample(tokens, (-float(turn),) * len(tokens), self.version, tokens[-1] == self._stop)

    async def end_session(self, session: str) -> None:
        self.ended.append(session)

    async def update_weights(self, state: Mapping[str, object], version: int) -> None:
        self.version = version

    async def close(self) -> None:
        """Nothing runs."""


def says(*responses: str) -> Callable[[str, int], str]:
    return lambda session, turn: responses[turn]
