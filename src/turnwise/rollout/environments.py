"""What rollout asks of the maker of environments (turnwise.tasks.EnvironmentStore fits it)."""

from dataclasses import dataclass
from typing import Protocol

from turnwise.types import SandboxSpec, Task


class Environments(Protocol):
    """Makes the sandbox specification of a task; the second time at once."""

    async def prepare(self, task: Task) -> SandboxSpec:
        """The task's repository at its base commit, hidden tests out, and the Python that runs it."""
        ...

    def stop(self) -> None:
        """End what is being made; nothing is made after it."""
        ...


@dataclass(frozen=True)
class FixedEnvironment:
    """One sandbox specification for every task, such as a repository that is ready already.

    >>> asyncio.run(FixedEnvironment(SandboxSpec(Path("repository"))).prepare(task)).root  # doctest: +SKIP
    PosixPath('repository')
    """

    spec: SandboxSpec

    async def prepare(self, task: Task) -> SandboxSpec:
        """The specification, whatever the task."""
        return self.spec

    def stop(self) -> None:
        """There is nothing to end."""
