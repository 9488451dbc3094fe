"""The messages that open an episode: the system prompt and the task."""

from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from turnwise.agent.config import AgentConfig
from turnwise.agent.observation import prompt_line
from turnwise.types import Task

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Message:
    """One message of a conversation, as chat templates take it.

    >>> Message("user", "hello").as_dict()
    {'role': 'user', 'content': 'hello'}
    """

    role: Role
    content: str

    def as_dict(self) -> dict[str, str]:
        """The form that `tokenizer.apply_chat_template` wants."""
        return {"role": self.role, "content": self.content}


def opening_messages(task: Task, config: AgentConfig, workdir: str = "/testbed") -> list[Message]:
    """The system prompt and the issue: the first observation o_0 of the episode (PAPER.md, "The problem").

    `workdir` is where the sandbox shows the repository.
    """
    system = _prompt(f"{config.system_prompt}.md").replace("{window_lines}", str(config.window_lines))
    if config.demonstration:
        system += "\n\n" + _prompt("demonstration.md")
    issue = task.problem_statement.strip()
    if config.system_prompt == "full":
        issue = _prompt("task.md").replace("{workdir}", workdir).replace("{problem_statement}", issue)
    return [Message("system", system), Message("user", f"{issue}\n{prompt_line(workdir, None)}")]


def _prompt(name: str) -> str:
    return (files("turnwise.agent") / "prompts" / name).read_text(encoding="utf-8").strip()
