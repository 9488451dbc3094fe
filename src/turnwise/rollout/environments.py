"""What rollout asks of the maker of environments (turnwise.tasks.EnvironmentStore fits it)."""

from typing import Protocol

from turnwise.types import SandboxSpec, Task


class Environments(Protocol):
    """Makes the sandbox specification of a task; the second time at once."""

    async def prepare(self, task: Task) -> SandboxSpec:
        """The task's repository at its base commit, hidden tests out, and the Python that runs it."""
        ...
