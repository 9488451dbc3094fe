"""Floor 2: how an episode is rewarded. Runs the hidden tests in a fresh sandbox and shapes the reward."""

from turnwise.rewards.command import find_pytest
from turnwise.rewards.grading import require_graders
from turnwise.rewards.reference import VARIANTS, References
from turnwise.rewards.shaping import length_penalty, reward_components
from turnwise.rewards.suite import FreshSuiteRunner, run_suite, suite_mount, with_suite
from turnwise.rewards.tripwires import all_rules, chosen_rules
from turnwise.rewards.verify import Verification, outcomes, verify

__all__ = [
    "VARIANTS",
    "FreshSuiteRunner",
    "References",
    "Verification",
    "all_rules",
    "chosen_rules",
    "find_pytest",
    "length_penalty",
    "outcomes",
    "require_graders",
    "reward_components",
    "run_suite",
    "suite_mount",
    "verify",
    "with_suite",
]
