"""Policies: tokens in, tokens out. The protocol and the scripted one load no torch; `policy.torch_policy` does."""

from turnwise.policy.protocol import Policy, check_training_sampling
from turnwise.policy.scripted import ScriptedPolicy

__all__ = ["Policy", "ScriptedPolicy", "check_training_sampling"]
