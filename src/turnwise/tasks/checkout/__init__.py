"""Environments of public repositories without containers: a commit, a Python and what the row installs."""

from turnwise.tasks.checkout.build import Built
from turnwise.tasks.checkout.store import CheckoutStore

__all__ = ["Built", "CheckoutStore"]
