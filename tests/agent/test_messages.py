"""The opening of an episode."""

import pytest

from turnwise.agent import AgentConfig, opening_messages, parse_response
from turnwise.errors import RecipeError
from turnwise.types import SourceDistribution, Task

TASK = Task(
    instance_id="toolz__toolz-1",
    repo="pytoolz/toolz",
    base_commit="0" * 40,
    patch="",
    test_patch="",
    problem_statement="take_nth(2, {seq}) gives too much.\n",
    fail_to_pass=(),
    pass_to_pass=(),
    environment=SourceDistribution("toolz", "1.0.0", "0" * 64),
)


def test_the_compact_opening_is_short_and_says_the_issue_as_it_is():
    system, user = opening_messages(TASK, AgentConfig(system_prompt="compact"))
    assert (system.role, user.role) == ("system", "user")
    assert len(system.content.split()) <= 80
    assert user.content == "take_nth(2, {seq}) gives too much.\n(cwd: /testbed, open: none)"


@pytest.mark.parametrize("prompt", ["compact", "full"])
def test_both_prompts_name_every_tool(prompt):
    system = opening_messages(TASK, AgentConfig(system_prompt=prompt))[0].content
    tools = ["create", "open", "goto", "scroll_up", "scroll_down", "search_file", "edit", "replace", "submit"]
    assert [tool for tool in tools if tool not in system] == []


def test_the_full_opening_names_the_window_and_the_workdir():
    system, user = opening_messages(TASK, AgentConfig(window_lines=57), workdir="/repo")
    assert "57 numbered lines" in system.content
    assert "in /repo" in user.content
    assert TASK.problem_statement.strip() in user.content
    assert user.content.endswith("\n(cwd: /repo, open: none)")


def test_the_demonstration_is_appended_to_the_system_prompt():
    plain = opening_messages(TASK, AgentConfig())[0].content
    shown = opening_messages(TASK, AgentConfig(demonstration=True))[0].content
    assert shown.startswith(plain + "\n\n")


def test_the_example_in_the_full_prompt_is_a_valid_reply():
    assert parse_response(opening_messages(TASK, AgentConfig())[0].content).command == "the command"


@pytest.mark.parametrize(
    ("key", "value"),
    [("window_lines", 0), ("max_turns", 0), ("system_prompt", "long"), ("max_response_tokens", 65_536)],
)
def test_settings_that_cannot_work_are_refused_by_name(key, value):
    with pytest.raises(RecipeError, match=f"agent.{key}"):
        AgentConfig(**{key: value})
