"""Python sources as bytes and as text."""

import io
import tokenize


def decode_source(content: bytes) -> tuple[str, str]:
    """A source's text, line ends kept, and its encoding. Raises SyntaxError, or ValueError if unreadable."""
    encoding = tokenize.detect_encoding(io.BytesIO(content).readline)[0]
    try:
        return content.decode(encoding), encoding
    except LookupError as error:  # it is no encoding of texts, as rot13
        raise ValueError(str(error)) from error


def encode_source(text: str, encoding: str) -> bytes:
    """The bytes of a source that `decode_source` read."""
    return text.encode(encoding)
