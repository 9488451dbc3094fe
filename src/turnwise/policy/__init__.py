"""Policies: tokens in, tokens out. Only `policy.torch_policy` loads torch, and only a made `Endpoint` openai."""

from turnwise.policy.chat import ChatPolicy
from turnwise.policy.endpoint import Endpoint
from turnwise.policy.protocol import Policy, check_training_sampling
from turnwise.policy.scripted import ScriptedPolicy

__all__ = ["ChatPolicy", "Endpoint", "Policy", "ScriptedPolicy", "check_training_sampling"]
