"""What bash takes for a heredoc and for its end, we do too: generated cases, each compared with bash itself."""

import random
import re
import subprocess

import pytest

from turnwise.agent.heredocs import heredocs

SPELLINGS = {
    "END": "END",
    "'END-1'": "END-1",
    '"E O F"': "E O F",
    "\\END": "END",
    "E\\ND": "END",
    "E'N'\"D\"": "END",
    "E.O.F": "E.O.F",
    "$'E\\x4eD'": "END",
    "$'a\\tb'": "a\tb",
    '$"END"': "END",
    "END-1": "END-1",
    "''": "",
    "' END'": " END",
    "'!@%^{}'": "!@%^{}",
    '"a\\$b"': "a$b",
    "日本": "日本",
    "a#b": "a#b",
    "E\\\nND": "END",
    "```": None,
}
OPENINGS = [
    *(
        "cat {op}{word}",
        "cat {op} {word} && true",
        "cat {op}{word} | cat",
        "cat > /dev/stdout {op}{word} # it's",
        "cat {op}\t{word};",
    ),
    *(
        "cat {op}{word} 3{op}{word}",
        "cat 3{op}X {op}{word}",
        "cat {op}{word} \\\n  -",
        "cat {op}{word} 'a\nb' -",
        "a#b {op}{word}",
    ),
    *(
        'echo "$(cat {op}{word}',
        "(cat {op}{word}",
        "{{ cat {op}{word}",
        "x=$(cat {op}{word}",
        "if true; then cat {op}{word}",
    ),
    *(
        "echo $(( 1 << 2 )); cat {op}{word}",
        "((x = 1 << 2)); cat {op}{word}",
        'echo "it\'s" {op}{word}',
        "echo \\' {op}{word}",
    ),
    *(
        "echo '{op}X'; cat {op}{word}",
        "cat <<<a {op}{word}",
        "echo $'it\\'s' {op}{word}",
        "echo ${{#x}} $# $$ {op}{word}",
    ),
]
DECOYS = [
    *(
        "cat <<<{word}",
        "cat <<< {word}",
        'echo "{op}{word}"',
        "echo \\<\\<X",
        "# {op}{word}",
        "echo $(( 1 << 2 ))",
        ": ; # a {op}{word}",
    ),
    *(
        "echo $((1<<2))",
        "((x=1<<2))",
        "echo '{op}END'",
        "echo $[1<<2]",
        "echo ${{x:-<<END}}",
        "for ((i=1; i<<1 < 3; i++)); do :; done",
    ),
    *('echo "${{x:-it\'s}}"', 'echo "$((1<<2)) <<END"', "echo `echo '<<END'`", "[[ a < b ]]", "echo a <(true)"),
]
CLOSINGS = {'echo "$(': ')"', "(": ")", "{{": "}", "x=$(": '); echo "$x"', "if": "fi"}


def case(rng):
    """A shell text in which every other line says whether it was run, and the numbers of those lines."""
    spelling, end = rng.choice([pair for pair in SPELLINGS.items() if pair[1] is not None])
    dash = rng.choice(["<<", "<<-"])
    opening = rng.choice(OPENINGS if rng.random() < 0.75 else DECOYS)
    near = [
        end,
        end,
        "\t" + end,
        "\t\t" + end,
        end + " ",
        " " + end,
        "x\\\n" + end,
        "x\\\\\n" + end,
        end[:1] + "\\\n" + end[1:],
    ]
    lines = [opening.format(op=dash, word=spelling)]
    for number in range(rng.randrange(2, 7)):
        lines += [f"echo @{number}", rng.choice([*near, "", "# it's", "\t"])]
    lines += [end, CLOSINGS.get(next((start for start in CLOSINGS if opening.startswith(start)), ""), ""), "echo @9"]
    return "\n".join(lines)


def run_by_bash(text, folder):
    done = subprocess.run(["bash", "-c", text], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    return {line for line in done.stdout.decode().splitlines() if re.fullmatch(r"@\d", line)}, done.stderr.decode()


def run_by_us(text):
    said = set()
    spans = [(found.start, len(text) if found.end is None else found.end) for found in heredocs(text)]
    for number in range(10):
        at = text.find(f"echo @{number}")
        if at >= 0 and not any(start <= at < end for start, end in spans):
            said.add(f"@{number}")
    return said


@pytest.mark.parametrize("seed", range(12))
def test_bash_runs_the_lines_that_we_take_for_shell(seed, tmp_path):
    rng = random.Random(seed)
    for _ in range(40):
        text = case(rng)
        ran, errors = run_by_bash(text, tmp_path)
        if "syntax error" in errors or "unexpected EOF" in errors:  # bash runs nothing of it
            continue
        assert (run_by_us(text), text) == (ran, text)


# At these lengths, a look at all that follows or precedes in each step would take an hour or more, against the minute
# that a test has; one look at each takes seconds.
LONG = {
    "unended": ("cat <<A\n" * 400_000, 1),
    "ended": ("cat <<'A'\nA\n" * 200_000, 200_000),
    "arithmetic": ("((" * 500_000, 0),
    "expansions": ("$((a" * 300_000, 0),
    "substitutions": ('"$(' * 300_000, 0),
    "subshells": ("(\n" * 500_000, 0),
    "backquotes": ("`" * 500_001, 0),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("text", "count"), LONG.values(), ids=LONG.keys())
def test_a_text_however_long_holds_nothing_up(text, count):
    assert len(heredocs(text)) == count
