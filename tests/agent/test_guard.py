"""Programs that wait for a keyboard are named before they are started; nothing else is."""

import pytest

from turnwise.agent.guard import interactive_program, refusal

INTERACTIVE = {
    "vim a.py": "vim",
    "/usr/bin/vi a.py": "vi",
    "cd toolz && nano x": "nano",
    "ls; less a.py": "less",
    "git log | less": "less",
    "EDITOR=cat sudo vim x": "vim",
    "if true; then top; fi": "top",
    "(ssh host)": "ssh",
    "python": "python",
    "python3 -W ignore": "python3",
    "python -i a.py": "python -i",
    "python -m pdb a.py": "python -m pdb",
    "echo a; bash": "bash",
    "bash --norc": "bash",
    "node": "node",
    "ipython": "ipython",
    "git rebase -i HEAD~2": "git rebase -i",
    "git add -p": "git add -p",
    "ls\nvim x": "vim",
    "ls \\\n && vim x": "vim",
}
LET_THROUGH = (
    "python a.py",
    "python -c 'import vim'",
    "python -Ic 'print(1)'",
    "python -m pytest -q",
    "python -m pdb a.py <<'END'\nq\nEND",
    "python - <<'END'\nvim\nEND",
    "python < a.py",
    "echo 'print(1)' | python",
    "echo ls | bash",
    "python --version",
    "bash -c 'ls'",
    "bash -lc ls",
    "bash run.sh",
    "top -b -n 1",
    "man --help",
    "emacs --batch -l x.el",
    "grep -rn vim .",
    "which less",
    "ls vim; echo 'a; vim b'",
    "edit 1:1 <<'END'\nvim\nless\nEND",
    "git log -p",
    "git stash show -p",
    "git commit -i a -m x",
    "timeout 5 vim x",
    "echo it's",
    "search_file python",
    "",
)


@pytest.mark.parametrize(("command", "program"), INTERACTIVE.items())
def test_an_interactive_program_is_named(command, program):
    assert interactive_program(command) == program


@pytest.mark.parametrize("command", LET_THROUGH)
def test_anything_else_is_let_through(command):
    assert refusal(command) is None


def test_a_nul_character_cannot_reach_the_shell():
    assert refusal("echo \0") == "[not run: the command holds a NUL character]"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("long", ["echo " + "x" * 8_000_000, "echo '" + "x " * 4_000_000 + "'"], ids=["word", "words"])
def test_a_command_however_long_holds_nothing_up(long):
    """A reading whose time grows with the square of a word's length would take days."""
    assert refusal(f"{long}; less a.py") is None
    assert refusal(f"less a.py <<'END'\n{long}\nEND") is not None
