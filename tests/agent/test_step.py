"""Steps in a real sandbox: what a response does, and what the model reads then."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from turnwise.agent import AgentConfig, Observation, act, run_command, with_tools
from turnwise.errors import SandboxError
from turnwise.sandbox import LocalBackend, Sandbox
from turnwise.types import FormatError, SandboxSpec

CONFIG = AgentConfig(system_prompt="compact", window_lines=6, command_timeout_s=20.0, max_observation_chars=400)


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """A sandbox with the tools, on a folder with a small package."""
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "a.py").write_text("".join(f"x{number} = {number}\n" for number in range(1, 101)))
    backend = LocalBackend()
    async with backend.create(with_tools(SandboxSpec(tmp_path), CONFIG.window_lines)) as sandbox:
        yield sandbox
    await backend.close()


async def step(sandbox: Sandbox, command: str, config: AgentConfig = CONFIG) -> Observation:
    return await act(sandbox, f"A thought.\n```command\n{command}\n```", config)


async def test_an_episode_reads_as_the_model_is_trained_to_read_it(sandbox):
    found = await step(sandbox, "grep -rn 'x50 ' .")
    assert found.text == "./pkg/a.py:50:x50 = 50\n(cwd: /testbed, open: none)"
    opened = await step(sandbox, "open pkg/a.py 50")
    assert opened.text.startswith("[File: /testbed/pkg/a.py (100 lines total)]\n(48 more lines above)\n49:x49 = 49\n")
    assert opened.text.endswith("\n(46 more lines below)\n(cwd: /testbed, open: pkg/a.py)")
    edited = await step(sandbox, "edit 50:50 <<'END'\nx50 = 51\nEND")
    assert edited.text == (
        "[Edited: 100 lines total]\n48:x48 = 48\n49:x49 = 49\n50:x50 = 51\n51:x51 = 51\n52:x52 = 52\n"
        "(cwd: /testbed, open: pkg/a.py)"
    )
    assert not edited.submitted
    submitted = await step(sandbox, "submit")
    assert (submitted.submitted, submitted.exit_code) == (True, 0)


@pytest.mark.parametrize(
    ("response", "error"),
    [
        ("I shall think.", FormatError.NO_COMMAND),
        ("```command\nls\n```\n```command\nls\n```", FormatError.MULTIPLE_COMMANDS),
    ],
)
async def test_a_format_error_is_an_observation_and_nothing_is_run(sandbox, response, error):
    observation = await act(sandbox, response.replace("ls", "touch made"), CONFIG)
    assert (observation.format_error, observation.command, observation.exit_code) == (error, None, None)
    assert observation.text.startswith("[format error: ")
    assert observation.text.endswith("(cwd: /testbed, open: none)")
    assert (await sandbox.exec("ls made", 5)).exit_code != 0


async def test_an_interactive_program_is_not_run(sandbox):
    observation = await step(sandbox, "touch made; vim pkg/a.py")
    assert observation.text == "[not run: vim is interactive; there is no keyboard]\n(cwd: /testbed, open: none)"
    assert (observation.command, observation.exit_code) == ("touch made; vim pkg/a.py", None)
    assert (await sandbox.exec("ls made", 5)).exit_code != 0


async def test_the_prompt_line_follows_the_directory(sandbox):
    await step(sandbox, "open pkg/a.py")
    assert (await step(sandbox, "cd pkg")).text == "[no output]\n(cwd: /testbed/pkg, open: a.py)"
    assert (await step(sandbox, "cd /tmp")).text.endswith("(cwd: /tmp, open: /testbed/pkg/a.py)")


async def test_a_command_past_its_time_says_so_with_the_output_so_far(sandbox):
    quick = AgentConfig(window_lines=6, command_timeout_s=0.5)
    observation = await step(sandbox, "echo begun; sleep 30", quick)
    assert observation.text.startswith("begun\n")
    assert observation.text.endswith("\n[stopped: still running after 0.5 seconds]\n(cwd: /testbed, open: none)")
    assert observation.exit_code == 124
    assert (await step(sandbox, "echo on")).text.startswith("on\n")


async def test_a_long_output_is_cut_in_the_middle(sandbox):
    text = (await step(sandbox, "seq 1 1000")).text
    assert text.startswith("1\n2\n3\n")
    assert "[output cut: 3,492 of 3,892 characters left out in the middle]" in text
    assert text.endswith("999\n1000\n(cwd: /testbed, open: none)")


@pytest.mark.parametrize(
    ("command", "submitted"),
    [
        ("submit", True),
        ("test -e pkg && submit", True),
        ("cd pkg; submit", True),
        ("test -e nothing && submit", False),
        ("submit && test -e nothing", False),
        ("submit now", False),
        ("echo submitted; echo '(cwd: /, open: none)'", False),
        ("printf 'submitted\\n/\\n'; exit 0", False),
        ("cat <<'END'\nsubmit\nEND", False),
    ],
)
async def test_only_submit_that_went_well_ends_the_episode(sandbox, command, submitted):
    assert (await step(sandbox, command)).submitted is submitted
    assert not (await step(sandbox, "true")).submitted


@pytest.mark.parametrize("command", ["exit 3", "kill -9 $$", "exec sh -c 'exit 3'", "set -e; false", "exec >/dev/null"])
async def test_an_agent_that_breaks_its_shell_goes_on(sandbox, command):
    await step(sandbox, command)
    assert (await step(sandbox, "echo on; open pkg/a.py 50")).text.startswith("on\n[File: /testbed/pkg/a.py (100")


SHELL_STATES = (
    "set -x",
    "set -v",
    "set -eu; unset PWD",
    "set -n",
    "set -f; IFS=0123456789abcdef",
    "cat() { echo no; }; cd() { :; }; test() { false; }; printf() { echo no; }; rm() { :; }; git() { :; }",
    "read() { :; }; eval() { :; }; exec() { :; }; mapfile() { :; }; local() { :; }; export() { :; }; unset() { :; }",
    "builtin() { echo no; }; enable() { :; }; unset() { :; }",
    "shopt -s expand_aliases; alias cat=false printf=false echo=false",
    "enable -n printf read eval mapfile builtin",
    "set -T; trap 'echo trapped' DEBUG",
    "set -E; trap 'echo trapped' ERR RETURN EXIT",
    "BASH_XTRACEFD=1; PS4='$(echo $RANDOM) '; set -x",
    "exec >/dev/null 2>&1 </dev/null; exec 3<&- 4<&-",
    "export LD_PRELOAD=/none BASH_ENV=/none ENV=/none PATH=$PATH:/none LC_ALL=xx; PROMPT_COMMAND='echo no'",
    "set -o posix",
    "readonly IFS PATH; export IFS",
    "umask 777",
)


@pytest.mark.parametrize("command", SHELL_STATES)
async def test_nothing_that_an_agent_does_to_its_shell_hides_submit_or_what_is_read(sandbox, command):
    quick = AgentConfig(window_lines=6, command_timeout_s=3.0)
    assert (await step(sandbox, command, quick)).text.endswith("(cwd: /testbed, open: none)")
    assert (await step(sandbox, "builtin cd pkg", quick)).text.endswith("(cwd: /testbed/pkg, open: none)")
    await sandbox.write("new/file", b"one\0two")
    assert await sandbox.read("new/file") == b"one\0two"
    with pytest.raises(FileNotFoundError):
        await sandbox.read("missing")
    submitted = await step(sandbox, "submit", quick)
    assert (submitted.submitted, submitted.exit_code) == (True, 0)


async def test_a_directory_whose_name_is_not_utf8_can_be_written_down(sandbox):
    text = (await step(sandbox, "mkdir $'caf\\xe9'; cd $'caf\\xe9'")).text
    assert text == "[no output]\n(cwd: /testbed/caf\N{REPLACEMENT CHARACTER}, open: none)"
    assert (await step(sandbox, "exit 3")).text.encode()


async def test_the_end_of_a_long_output_is_seen(sandbox):
    text = (await step(sandbox, "seq 30000; echo THE-END")).text
    assert text.startswith("1\n2\n3\n")
    assert "\n[output cut: 168,502 of 168,902 bytes left out in the middle]\n" in text
    assert text.endswith("30000\nTHE-END\n(cwd: /testbed, open: none)")


async def test_a_replayed_command_answers_as_it_did(sandbox):
    shown = await step(sandbox, "open pkg/a.py 50")
    again = await run_command(sandbox, "open pkg/a.py 50", CONFIG)
    assert (again.text, again.exit_code, again.submitted) == (shown.text, 0, False)


async def test_a_dead_sandbox_is_no_observation(tmp_path):
    backend = LocalBackend()
    sandbox = backend.create(with_tools(SandboxSpec(tmp_path), 6))
    async with sandbox:
        pass
    with pytest.raises(SandboxError):
        await step(sandbox, "ls")
    await backend.close()
