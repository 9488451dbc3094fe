"""Every error that Turnwise raises on purpose, drawn as one tree.

TurnwiseError
├── InputError                 what the user gave is wrong: names the file, the key or the row, and what to do
│   ├── RecipeError            a recipe key is unknown, contradictory or without effect
│   ├── TaskError              a task row or a package cannot become a task
│   ├── ImageError             a container image is none, or lacks what sandboxes need
│   └── CheckpointError        a checkpoint cannot be used (no chat template, unstable template, missing files)
├── InfrastructureError        nobody's fault but the machine's: retried, counted by cause, never a reward of 0
│   ├── SandboxError           a sandbox could not start, died, or lost its disk
│   ├── PolicyError            the sampling engine failed
│   ├── TaskFailure            a task's row is at fault: no environment, or nothing to grade it by; not tried again
│   └── StoreError             the journal could not be read or written
├── ContextExceeded            an endpoint holds that a conversation no longer fits its model: the policy's doing
├── ContentRefused             a model or its service declines to answer a conversation: the policy's doing
├── TrainingError              an optimizer step went wrong: its loss or gradient is no number
└── LogprobMismatch            the engine's and the trainer's log-probabilities differ by more than the bound
"""


class TurnwiseError(Exception):
    """Base of every error raised on purpose; its message is fit to be shown to a user as it is."""


class InputError(TurnwiseError):
    """Something that the user gave is wrong; the message names it and says what to do."""


class RecipeError(InputError):
    """A recipe key is unknown, contradicts another or has no effect in the chosen mode."""


class TaskError(InputError):
    """A task row lacks what it needs, or a package cannot be turned into tasks."""


class ImageError(InputError):
    """A container image cannot be unpacked, or no sandbox can run in it; the message names it."""


class CheckpointError(InputError):
    """A model checkpoint cannot be used as it is."""


class InfrastructureError(TurnwiseError):
    """The infrastructure failed, not the policy; `cause` is the word it is counted under."""

    cause = "infrastructure"


class SandboxError(InfrastructureError):
    """A sandbox could not start, died under a command, or lost its disk."""

    cause = "sandbox_failure"


class PolicyError(InfrastructureError):
    """The sampling engine failed or did not answer in time."""

    cause = "policy_failure"


class TaskFailure(InfrastructureError):
    """A task cannot be run or graded, by its row's own fault: its episodes are given up, those of others go on."""

    cause = "task_failure"


class StoreError(InfrastructureError):
    """The run's journal could not be read or written."""

    cause = "store_failure"


class ContextExceeded(TurnwiseError):
    """A policy's endpoint says that the conversation is longer than its model's context: the episode ends with it."""


class ContentRefused(TurnwiseError):
    """A policy's endpoint declines to answer: a refusal or a content filter. The episode ends with it, unresolved."""


class TrainingError(TurnwiseError):
    """An optimizer step could not be taken: the loss or the gradient is not a finite number."""


class LogprobMismatch(TurnwiseError):
    """Engine and trainer disagree on the log-probabilities of the same tokens (PAPER.md, finding 2)."""
