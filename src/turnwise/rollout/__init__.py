"""Floor 3: plays episodes against a policy, many at once, and retries what the infrastructure broke."""

from turnwise.rollout.collect import Collector, EpisodeRequest, groups
from turnwise.rollout.environments import Environments, FixedEnvironment
from turnwise.rollout.episode import run_episode, turn_seed
from turnwise.rollout.verification import Verifier

__all__ = [
    "Collector",
    "Environments",
    "EpisodeRequest",
    "FixedEnvironment",
    "Verifier",
    "groups",
    "run_episode",
    "turn_seed",
]
