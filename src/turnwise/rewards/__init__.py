"""Floor 2: what an episode is paid. Runs the hidden tests in a fresh sandbox and shapes the reward."""

from turnwise.rewards.command import read_command
from turnwise.rewards.grading import require_graders
from turnwise.rewards.shaping import length_penalty, reward_components
from turnwise.rewards.suite import FreshSuiteRunner, run_suite, suite_mount, with_suite
from turnwise.rewards.verify import outcomes, verify

__all__ = [
    "FreshSuiteRunner",
    "length_penalty",
    "outcomes",
    "read_command",
    "require_graders",
    "reward_components",
    "run_suite",
    "suite_mount",
    "verify",
    "with_suite",
]
