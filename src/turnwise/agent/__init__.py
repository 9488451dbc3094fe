"""The agent's scaffold (PAPER.md, section 3.3, appendix F): prompts, tools, parsing, chat rendering, the ReAct step."""

from turnwise.agent.chat import ChatRenderer
from turnwise.agent.config import AgentConfig
from turnwise.agent.messages import Message, opening_messages
from turnwise.agent.observation import Observation
from turnwise.agent.parsing import ParsedResponse, parse_response
from turnwise.agent.patch import Work, base_of, take_patch, take_work
from turnwise.agent.step import act, run_command
from turnwise.agent.tokenizer import load_tokenizer
from turnwise.agent.tools import tools_mount, with_tools
from turnwise.agent.transcript import Renderer, TranscriptRenderer

__all__ = [
    "AgentConfig",
    "ChatRenderer",
    "Message",
    "Observation",
    "ParsedResponse",
    "Renderer",
    "TranscriptRenderer",
    "Work",
    "act",
    "base_of",
    "load_tokenizer",
    "opening_messages",
    "parse_response",
    "run_command",
    "take_patch",
    "take_work",
    "tools_mount",
    "with_tools",
]
