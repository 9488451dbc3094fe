"""The tools as a shell sees them: what they print, where, and with which exit status."""

import ast
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from turnwise.agent import tools_mount

Run = Callable[[str], tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a shell command in a folder with a file of 100 lines; gives the exit status and all output."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "a.py").write_text("".join(f"x{number} = {number}\n" for number in range(1, 101)))
    env = {
        "PATH": f"{tools_mount().host}:{os.environ['PATH']}",
        "TURNWISE_STATE": str(tmp_path / "state"),
        "TURNWISE_WINDOW": "6",
        "W": str(tmp_path / "work"),
    }

    def run(command: str) -> tuple[int, str]:
        done = subprocess.run(
            ["/bin/bash", "-c", command],
            cwd=tmp_path / "work",
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=20,
        )
        return done.returncode, done.stdout.decode(errors="replace").replace(env["W"], "W")

    return run


def test_open_shows_a_window_with_the_line_near_its_top(run):
    shown = "[File: W/a.py (100 lines total)]\n(48 more lines above)\n" + "".join(
        f"{number}:x{number} = {number}\n" for number in range(49, 55)
    )
    assert run("open a.py 50") == (0, shown + "(46 more lines below)\n")


def test_the_window_stays_inside_the_file(run):
    assert run("open a.py 100")[1].endswith("99:x99 = 99\n100:x100 = 100\n")
    assert run("open a.py")[1].startswith("[File: W/a.py (100 lines total)]\n1:x1 = 1\n")


def test_scrolling_overlaps_and_stops_at_both_ends(run):
    run("open a.py")
    assert run("scroll_down")[1].startswith("[File: W/a.py (100 lines total)]\n(4 more lines above)\n5:x5 = 5\n")
    assert run("scroll_up")[1].startswith("[File: W/a.py (100 lines total)]\n1:")
    assert run("scroll_up") == (1, "scroll_up: already at the top of the file\n")
    run("goto 100")
    assert run("scroll_down") == (1, "scroll_down: already at the end of the file\n")


def test_tools_compose_with_the_shell(run):
    assert run("open a.py && goto 50 | grep -c =")[1].endswith("\n6\n")
    assert run("open no.py && echo yes") == (1, "open: W/no.py: no such file or directory\n")
    assert run("open a.py | head -1") == (0, "[File: W/a.py (100 lines total)]\n")


def test_the_open_file_is_kept_by_its_absolute_path(run):
    run("open a.py 30")
    assert run("mkdir sub && cd sub && open")[1].startswith("[File: W/a.py (100 lines total)]\n(28 more")


def test_edit_replaces_an_inclusive_range_and_shows_what_is_near(run):
    run("open a.py")
    assert run("edit 10:11 <<'END'\nif x9:\n    x10 = '$HOME'\nEND") == (
        0,
        "[Edited: 100 lines total]\n8:x8 = 8\n9:x9 = 9\n10:if x9:\n11:    x10 = '$HOME'\n12:x12 = 12\n13:x13 = 13\n",
    )


def test_edit_takes_its_text_as_an_argument_too(run):
    assert run("edit --file a.py 2:100 'y = 0' && cat a.py") == (
        0,
        "[Edited: 2 lines total]\n1:x1 = 1\n2:y = 0\nx1 = 1\ny = 0\n",
    )
    assert run("edit --file a.py 1:1 '' && cat a.py")[1].endswith("\ny = 0\n")
    assert run("edit --file a.py 1:1 '\nz = 1\n\n' && cat -A a.py")[1].endswith("$\nz = 1$\n$\n")


def test_edit_says_when_python_can_no_longer_parse_the_file(run):
    run("open a.py")
    code, text = run("edit 3:3 'def f('")
    assert (code, text.splitlines()[-1][:26]) == (0, "warning: line 3: SyntaxErr")
    assert "warning" not in run("edit 3:3 'x3 = 3'")[1]


def test_edit_keeps_line_endings_and_bytes_that_are_no_text(run):
    run(r"printf 'a\r\n\xe9\r\nc' > l.txt && edit --file l.txt 1:1 'b' && open l.txt")
    assert run("od -An -c l.txt")[1].split() == ["b", r"\r", r"\n", "351", r"\r", r"\n", "c"]


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        ("edit 1:1 x", "edit: no file is open; use: open FILE"),
        ("edit --file a.py 90:101 x", "edit: lines 90:101 are outside the file, which has 100 lines"),
        ("edit --file a.py 0:1 x", "edit: lines 0:1 are outside the file, which has 100 lines"),
        ("edit --file a.py 5:4 x", "edit: lines 5:4 are outside the file, which has 100 lines"),
        ("edit --file a.py 5 x", "edit: 5 is not a line range; use START:END, like 12:14"),
        ("edit --file a.py 5:5 x y", "edit: usage: edit [--file PATH] START:END [TEXT], or the text as a heredoc"),
        ("edit --file a.py 5:5", "edit: no text given; add TEXT ('' deletes the lines) or a heredoc"),
        ("replace a b", "replace: no file is open; use: open FILE"),
        ("replace --file a.py zz b", "replace: search text not found in W/a.py"),
        ("replace --file a.py x1 b", "replace: search text found 12 times; make it longer or add --replace-all"),
        ("goto 3", "goto: no file is open; use: open FILE"),
        ("open a.py 101", "open: line 101 is outside the file, which has 100 lines"),
        ("open a.py x", "open: not a line number: x"),
        ("open .", "open: W: is a directory"),
        ("open /bin/ls", "open: /bin/ls: not a text file"),
        ("create a.py", "create: a.py exists already; use: open a.py"),
        ("search_file zz a.py", 'search_file: "zz" is not in W/a.py'),
        ("submit now", "submit: usage: submit"),
    ],
)
def test_refusals_are_one_line_and_change_nothing(run, command, refusal):
    before = run("cat a.py")
    assert run(command) == (1, refusal + "\n")
    assert run("cat a.py") == before


def test_replace_needs_one_place_or_leave_for_all(run):
    assert run("replace --file a.py 'x50 = 50' 'x50 =\\\n    5' && sed -n 50,51p a.py")[1].endswith("x50 =\\\n    5\n")
    assert run("replace --file a.py --replace-all x1 y1")[1].startswith("[Edited: 12 replaced]\n1:y1 = 1\n2:x2 = 2\n")
    assert run("grep -c y1 a.py") == (0, "12\n")


def test_search_file_takes_its_term_literally(run):
    assert run("search_file '0 = 1' a.py") == (0, '[2 lines with "0 = 1"]\n10:x10 = 10\n100:x100 = 100\n')
    assert run("search_file . a.py")[0] == 1
    assert run("search_file = a.py")[1].endswith("50:x50 = 50\n(50 more)\n")


def test_create_makes_a_file_that_edit_can_fill(run):
    assert run("create new/b.py") == (0, "[File: W/new/b.py (1 lines total)]\n1:\n")
    run("edit 1:1 <<'END'\nimport os\nEND")
    assert run("cat new/b.py") == (0, "import os\n")


def test_submit_leaves_its_mark_and_says_nothing(run):
    assert run("submit && ls $TURNWISE_STATE") == (0, "submitted\n")


def test_a_broken_repository_does_not_break_the_tools(run):
    run("echo 'raise SystemExit(3)' | tee os.py sys.py _tools.py sitecustomize.py")
    assert run("PYTHONPATH=. PYTHONSTARTUP=os.py open a.py")[0] == 0


def test_the_tools_are_python_3_6():
    source = (tools_mount().host / "_tools.py").read_text()
    ast.parse(source, feature_version=(3, 6))
    imported = {
        alias.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import) for alias in node.names
    }
    assert imported == {"os", "sys"}
