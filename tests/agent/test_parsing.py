"""One command per response, and the two format errors."""

import pytest

from turnwise.agent import parse_response
from turnwise.agent.parsing import without_heredocs
from turnwise.types import FormatError

COMMANDS = {
    "Look.\n```command\nls -a\n```": "ls -a",
    "```command\nls\n```\nand then we shall see": "ls",
    "```command  \nls\n```  ": "ls",
    "```command\ncd a\n\nls\n```": "cd a\n\nls",
    "```command\n\n  ls\n\n```": "  ls",
    "```python\nx = 1\n```\nso\n```command\nls\n```": "ls",
    "<think>\n```command\nrm x\n```\n</think>\n```command\nls\n```": "ls",
    # A heredoc may hold fences of its own.
    "```command\ncat > a.md <<'END'\n```\ncode\n```\nEND\nls\n```": "cat > a.md <<'END'\n```\ncode\n```\nEND\nls",
    "```command\ncat <<-A; cat <<B\n```\n\tA\n```\nB\n```": "cat <<-A; cat <<B\n```\n\tA\n```\nB",
    # What only looks like a heredoc, or never ends, does not swallow the fence.
    "```command\ngrep '<<END' a.py\n```": "grep '<<END' a.py",
    "```command\ncat <<END\nx\n```": "cat <<END\nx",
    "```command\ncat <<<word\n```": "cat <<<word",
}
ERRORS = {
    "": FormatError.NO_COMMAND,
    "ls": FormatError.NO_COMMAND,
    "```command ls```": FormatError.NO_COMMAND,
    "```\nls\n```": FormatError.NO_COMMAND,
    "```bash\nls\n```": FormatError.NO_COMMAND,
    "```commands\nls\n```": FormatError.NO_COMMAND,
    "```command\n```": FormatError.NO_COMMAND,
    "```command\n \n\n```": FormatError.NO_COMMAND,
    "```command\nls": FormatError.NO_COMMAND,
    "<think>\n```command\nls\n```\n</think>\nDone.": FormatError.NO_COMMAND,
    "```command\nls\n```\n```command\npwd\n```": FormatError.MULTIPLE_COMMANDS,
    "```command\nls\n```\nthen\n```command\npw": FormatError.MULTIPLE_COMMANDS,
    "```command\n```\n```command\nls\n```": FormatError.MULTIPLE_COMMANDS,
    "```command\ncat <<END\nx\n```\n```command\ncat <<END\nEND\n```": FormatError.MULTIPLE_COMMANDS,
}


@pytest.mark.parametrize(("text", "command"), COMMANDS.items())
def test_the_one_block_is_the_command(text, command):
    parsed = parse_response(text)
    assert (parsed.command, parsed.error) == (command, None)


@pytest.mark.parametrize(("text", "error"), ERRORS.items())
def test_anything_else_is_one_of_two_format_errors(text, error):
    parsed = parse_response(text)
    assert (parsed.command, parsed.error) == (None, error)


def test_heredoc_bodies_are_no_words_of_the_command():
    assert without_heredocs("edit 1:2 <<'A' && ls\nvim\nA\npwd") == "edit 1:2 <<'A' && ls\npwd"
