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
    "```command\necho $((1<<x))\n```\nx\n```": "echo $((1<<x))",
    "```command\necho '\n<<A'\n```\nA\n```": "echo '\n<<A'",
    "```command\ncat > n.md <<'END-1'\n```\ncode\n```\nEND-1\n```": "cat > n.md <<'END-1'\n```\ncode\n```\nEND-1",
    "```command\ngit commit -m \"$(cat <<'E.F'\n```\nE.F\n)\"\n```": "git commit -m \"$(cat <<'E.F'\n```\nE.F\n)\"",
    # Only the reasoning that a response begins with is left out; a tag elsewhere is text.
    "x\n```command\ngrep -n '</think>' a.py\n```": "grep -n '</think>' a.py",
    "```command\necho </think>\n```": "echo </think>",
    "```command\nls\n```\nThe `</think>` tag.": "ls",
    "```command\nls\n```\nThe </think> tag.": "ls",
    "```command\ncat > a <<'E'\n<think>\nx\n</think>\nE\n```": "cat > a <<'E'\n<think>\nx\n</think>\nE",
    "```command\ncat > a <<'E'\n</think>\nE\n```": "cat > a <<'E'\n</think>\nE",
    "<think>\nx\n</think>\n```command\necho '</think>'\n```\n</think>": "echo '</think>'",
    "<think>Where is '</think>'?\n```command\nrm '</think>'\n```\n</think>```command\nls\n```": "ls",
    "draft:\n```command\nrm x\n```\n</think>\n\n```command\nls\n```": "ls",
    "draft:\n```command\nrm x\n```\nno.</think>So:\n```command\nls\n```": "ls",
    "<thinking>\n```command\nrm x\n```\n</thinking>\n```command\nls\n```": "ls",
    "[THINK]```command\nrm x\n```\n[/THINK]\n```command\nls\n```": "ls",
    "<think>\nno end\n```command\nls\n```": "ls",
    # Lines may end as on other systems.
    "```command\r\nls\r\n```": "ls",
    "```command\rls\r```\r": "ls",
    "x\r\n```command\r\ncat <<E\r\n```\r\nE\r\nls\r\n```\r\n": "cat <<E\n```\nE\nls",
    "<think>\r\n```command\r\nrm\r\n```\r\n</think>\r\n```command\r\nls\r\n```": "ls",
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
    "```command\nls\n```\n</think>\nDone.": FormatError.NO_COMMAND,
    "<seed:think>```command\nls\n```\n</seed:think>\nDone.": FormatError.NO_COMMAND,
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
