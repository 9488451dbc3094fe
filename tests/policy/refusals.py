"""Error answers of HTTP as common services word them, by what they mean for an episode."""

from ..endpoint import error

# The prompt alone is too long: the policy's doing.
TOO_LONG = {
    "openai": error(400, "maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens.", "x"),
    "azure": error(400, "too many", "context_length_exceeded"),
    "openai-gpt5": error(400, "Input tokens exceed the configured limit of 272000 tokens. Yours have 300000 tokens."),
    "openai-window": error(400, "Your input exceeds the context window of this model."),
    "openai-string": error(400, "Invalid 'messages[1].content': string too long.", "string_above_max_length"),
    "anthropic": error(413, "prompt is too long: 210000 tokens > 200000 maximum"),
    "vllm": error(400, "The decoder prompt (length 9) is longer than the maximum model length of 8."),
    "vllm-no-room": error(
        400, "maximum context length is 2048 tokens. However, your request has 2048 input tokens plus 1 'max_tokens'"
    ),
    "sglang": error(400, "The input (9 tokens) is longer than the model's context length (8 tokens)."),
    "llama.cpp": error(400, "the request exceeds the available context size. try increasing it"),
    "ollama": error(400, "prompt too long; exceeded max context length by 12 tokens"),
    "tgi": error(422, "Input validation error: `inputs` must have less than 1024 tokens. Given: 5000"),
    "openrouter": error(
        400, "maximum context length is 100 tokens. However, you requested about 210 tokens (200 of text input, 10 in)"
    ),
    "fireworks": error(400, "The prompt is too long: 9000, model maximum context length: 8191"),
    "mistral": error(400, "Prompt contains 40000 tokens, too large for model with 32768 maximum context length"),
    "deepseek": error(
        400, "maximum context length is 100 tokens. However, you requested 140 tokens (120 in the messages, 20 in)"
    ),
    "dashscope": error(400, "Range of input length should be [1, 98304]"),
    "gemini": error(400, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),
    "bedrock": error(400, "Input is too long for requested model."),
    "groq": error(400, "Please reduce the length of the messages or completion."),
    "xai": error(400, "This model's maximum prompt length is 131072 but the request contains 150000 tokens."),
    "moonshot": error(400, "Invalid request: Your request exceeded model token limit: 8192"),
    "litellm": error(400, "litellm.ContextWindowExceededError: OpenAIException - too many"),
}
# Prompt (8 or more) and limit of the reply (2045) together exceed a window of 2048, in which the prompt has room.
LIMIT_TOO_LARGE = {
    "vllm": "maximum context length is 2048 tokens. However, your request has 8 input tokens plus 2045 'max_tokens'",
    "vllm-older": "'max_tokens' is too large: 2045. This model's maximum context length is 2048 tokens and your "
    "request has 8 input tokens (2045 > 2048 - 8).",
    "openai": "maximum context length is 2048 tokens. However, you requested 2053 tokens (8 in the messages, 2045 in "
    "the completion).",
    "vllm-newer": "maximum context length is 2048 tokens. However, you requested 2045 output tokens and your prompt "
    "contains at least 8 input tokens",
    "sglang": "Requested token count exceeds the model's maximum context length of 2048 tokens. You requested a total "
    "of 2053 tokens: 8 tokens from the input messages and 2045 tokens for the completion.",
    "tgi": "`inputs` tokens + `max_new_tokens` must be <= 2048. Given: 8 `inputs` tokens and 2045 `max_new_tokens`",
    "anthropic": "input length and `max_tokens` exceed context limit: 8 + 2045 > 2048, decrease one of them",
    "openrouter": "maximum context length is 2048 tokens. However, you requested about 2053 tokens (8 of text input, "
    "2045 in the output).",
}
SETTINGS = {
    "openai": "max_tokens is too large: 9. This model supports at most 8 completion tokens",
    "openai-reasoning": "Unsupported parameter: 'max_tokens' is not supported with this model.",
    "dashscope": "Range of max_tokens should be [1, 8192]",
    "deepseek": "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]",
}
DECLINED = {
    "azure": error(400, "The response was filtered due to the prompt", "content_filter"),
    "azure-words": error(400, "triggering Azure OpenAI's content management policy. Please modify your prompt"),
    "openrouter": error(403, "Your chosen model requires moderation and your input was flagged"),
    "dashscope": error(400, "Input data may contain inappropriate content.", "DataInspectionFailed"),
    "deepseek": error(400, "Content Exists Risk"),
}
NO_SYSTEM_ROLE = {
    "vllm-gemma": error(400, "System role not supported"),
    "gemini": error(400, "Developer instruction is not enabled for models/gemma-3-27b-it"),
    "openai-o1": error(400, "'messages[0].role' does not support 'system' with this model.", "unsupported_value"),
    "mistral": error(500, "Conversation roles must alternate user/assistant/user/assistant/..."),
}
ACCOUNT = {
    "openai": error(429, "You exceeded your current quota", "insufficient_quota"),
    "anthropic": error(400, "Your credit balance is too low to access the Anthropic API"),
    "deepseek": error(402, "Insufficient Balance"),
    "gemini": error(400, "API key not valid. Please pass a valid API key."),
    "dashscope": error(400, "Access denied", "Arrearage"),
}
# Each has words of a class above and is another: (status, text, codes, the user's fields, what it is).
NEAR_MISSES = {
    # Not too long: a limit on rate, a failure, or a field that only sounds like it.
    "context-rate": (
        429,
        "Request too large: too many input tokens per min, reduce the length of the prompt",
        (),
        (),
        "rate",
    ),
    "context-server": (
        500,
        "Failed to load the model: cannot allocate the maximum context length of 131072",
        (),
        (),
        "server",
    ),
    "context-field": (400, "Unknown parameter: 'context_length'", (), ("context_length",), "setting"),
    "context-extra": (400, "Extra inputs are not permitted: context_window", (), ("context_window",), "setting"),
    "context-string": (
        400,
        "Invalid 'metadata.run': string too long. Expected a string with maximum length 512",
        ("string_above_max_length",),
        ("metadata",),
        "setting",
    ),
    "context-limit": (400, "max_tokens is too large: 9000. The input is fine", (), ("max_tokens",), "setting"),
    "context-type": (400, "Invalid value for 'messages[0].content': input must be a string", (), (), "other"),
    # Not declined: the account, the key, a model's or a field's name, or a filter that is down.
    "content-account": (403, "Your account was flagged for unusual activity", (), (), "key"),
    "content-key": (401, "Incorrect API key provided. Read our usage policies and content policy", (), (), "key"),
    "content-model": (404, "The model 'content-filter-v2' does not exist", (), (), "model"),
    "content-field": (400, "content_filter is not a valid field", (), ("content_filter",), "setting"),
    "content-down": (503, "The content filter is unavailable, try again", (), (), "server"),
    "content-rate": (429, "Your requests were flagged as too frequent, slow down", (), (), "rate"),
    "content-type": (400, "Invalid content type: filter", (), (), "other"),
    # Not a refusal of the system role.
    "system-file": (400, "File system not supported", (), (), "other"),
    "system-tool": (400, "The tool role is not supported", (), (), "other"),
    # Neither the key nor the account: a token of the vocabulary.
    "key-token": (400, "logit_bias: the token is not valid", (), ("logit_bias",), "setting"),
    "key-stop": (400, "A stop token is invalid", (), (), "other"),
    # Not tried again: the wording alone makes nothing temporary.
    "rate-words": (400, "Your plan has no rate limit tier for this", (), (), "other"),
    "server-words": (400, "Internal validation: the model is not overloaded", (), (), "other"),
}
