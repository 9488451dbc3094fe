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


def test_replace_takes_line_endings_as_edit_does(run):
    run(r"printf 'def f():\r\n    return 1\r\n' > c.py")
    assert run("replace --file c.py 'def f():\n    return 1' 'x\ny'")[0] == 0
    assert run("od -An -c c.py")[1].split() == ["x", r"\r", r"\n", "y", r"\r", r"\n"]
    assert run("replace --file c.py y 'a\nb' && od -An -c c.py")[1].split()[-6:] == [
        "a",
        r"\r",
        r"\n",
        "b",
        r"\r",
        r"\n",
    ]


@pytest.mark.parametrize(
    ("before", "command", "after"),
    [
        (b"a\nb\r\nc\nd\r\n", "replace --file f 'b\nc' 'x\ny\nz'", b"a\nx\r\ny\r\nz\nd\r\n"),
        (b"a\nb\r\n", "edit --file f 2:2 'x\ny'", b"a\nx\r\ny\r\n"),
        (b"a\r\nb", "replace --file f b 'x\ny'", b"a\r\nx\r\ny"),
        (b"a\r\na\r\nb\r\n", "replace --file f --replace-all 'a\n' ''", b"b\r\n"),
        (b"a\r\nb\r\n", "replace --file f --replace-all $'\\r' ''", b"a\nb\n"),
        (b"a\rb\r\n", "replace --file f $'a\\rb' c", b"c\r\n"),
        (b"\xef\xbb\xbfa\nb\n", "edit --file f 1:1 x", b"\xef\xbb\xbfx\nb\n"),
        (b"\xef\xbb\xbfa\nb\n", "replace --file f a x", b"\xef\xbb\xbfx\nb\n"),
        (b"\xe9a\n", "replace --file f a $'\\xe8\\n'", b"\xe9\xe8\n\n"),
        (b"a", "replace --file f a b", b"b"),
        (b"a\n\n", "replace --file f a ''", b"\n\n"),
    ],
)
def test_an_edit_keeps_every_byte_that_it_was_not_asked_to_change(run, tmp_path, before, command, after):
    (tmp_path / "work" / "f").write_bytes(before)
    assert run(command)[0] == 0
    assert (tmp_path / "work" / "f").read_bytes() == after


def test_a_full_disk_leaves_the_old_file_whole(run):
    full = "ulimit -f 1; "  # no file of this shell can be over 1,024 bytes: a write fails part of the way
    run("seq 200 > big && sed -i 1,150d big")
    before = run("cat big; ls -A")
    code, text = run(full + "edit --file big 1:1 <<<$(seq -s_ 1000)")
    assert (code, text) == (1, "edit: W/big: file too large; nothing was changed\n")
    assert run("cat big; ls -A") == before


def test_the_old_file_stays_whole_until_the_new_one_is(run):
    before = run("cat a.py")
    assert run("exec 3< a.py; edit --file a.py 1:100 '' > /dev/null; cat <&3") == before


def test_an_edit_keeps_mode_and_links(run):
    run("chmod 4750 a.py && ln -s a.py link.py && ln -s link.py farther.py")
    assert run("edit --file farther.py 1:1 'x1 = 0'")[0] == 0
    assert run("readlink farther.py link.py; stat -c %a a.py; head -1 a.py")[1] == "link.py\na.py\n4750\nx1 = 0\n"


@pytest.mark.parametrize("deep", ["'+'.join(['1'] * 5000)", "'-' * 200000 + '1'", "'(' * 300 + ')' * 300"])
def test_an_edit_succeeds_whatever_the_parser_makes_of_the_file(run, deep):
    run(f"""python3 -c "print('x =', {deep}); print('y = 1')" > d.py""")
    code, text = run("edit --file d.py 2:2 'y = 2' | tail -c 200; exit ${PIPESTATUS[0]}")
    assert (code, "Traceback" in text) == (0, False)
    assert run("tail -1 d.py") == (0, "y = 2\n")


def test_output_that_cannot_be_written_is_no_failed_edit(run):
    assert run("edit --file a.py 1:1 'x1 = 0' > /dev/full")[0] == 0
    assert run("head -1 a.py") == (0, "x1 = 0\n")
    assert run("open a.py > /dev/full")[0] == 1


def test_a_huge_file_is_viewed_in_little_memory_and_not_edited(run):
    run("{ seq 1000; head -c 256M /dev/zero | tr '\\0' x; echo; seq 1000; } > huge")
    little = "ulimit -v 200000; "
    assert run(little + "open huge 1002")[1].endswith(
        "\n1002:1\n1003:2\n1004:3\n1005:4\n1006:5\n(995 more lines below)\n"
    )
    assert "(2001 lines total)" in run(little + "open huge | head -1")[1]
    assert int(run(little + "open huge 1001 | wc -c")[1]) < 100_000
    assert run("edit --file huge 1:1 x") == (1, "edit: W/huge: too large; at most 64 MB\n")
    assert run("replace --file huge x y") == (1, "replace: W/huge: too large; at most 64 MB\n")
    assert run(little + "search_file 77 huge")[1].count("\n") <= 51


@pytest.mark.parametrize("tool", ["open {}", "edit --file {} 1:1 x", "replace --file {} x y", "search_file x {}"])
@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("fifo", "W/fifo: not a regular file"),
        ("/dev/zero", "/dev/zero: not a regular file"),
        ("loop", "W/loop: too many levels of symbolic links"),
        ("gone", "W/gone: no such file or directory"),
        ("folder", "W/folder: is a directory"),
        ("a.py/x", "W/a.py/x: not a directory"),
        ("binary", "W/binary: not a text file"),
        ("/proc/self/mem", "input/output error"),
        ("$'new\\nline'", "W/new\\nline: no such file or directory"),
    ],
)
def test_what_is_no_text_file_is_refused_in_one_line(run, tool, path, why):
    run("mkfifo fifo; ln -s loop loop; ln -s none gone; mkdir folder; printf 'a\\0b' > binary")
    assert run(tool.format(path)) == (1, f"{tool.split()[0]}: {why}\n")


@pytest.mark.parametrize("command", ["goto {}", "edit --file a.py {}:{} x", "open a.py {}"])
def test_a_number_of_thousands_of_digits_is_refused_in_one_line(run, command):
    run("open a.py")
    code, text = run(command.replace("{}", "9" * 5000))
    assert (code, text.count("\n"), "Traceback" in text) == (1, 1, False)


def test_a_folder_that_is_gone_is_a_refusal(run):
    assert run("export PATH=${PATH%%:*}:/usr/bin:/bin; mkdir d; cd d; rmdir ../d; open a.py")[1].endswith(
        "open: no such file or directory\n"
    )


def test_files_of_proc_can_be_viewed(run):
    assert run("open /proc/self/limits")[0] == 0


def test_a_state_that_cannot_be_kept_leaves_no_new_file(run):
    assert run("TURNWISE_STATE=/proc/none create b.py")[0] == 1
    assert run("ls b.py")[0] != 0
