"""Turnwise: reinforcement learning for software-engineering agents over long episodes (arXiv:2508.03501)."""

__version__ = "0.1.0"
