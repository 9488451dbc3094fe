"""The nouns that every room shares (floor 0). Immutable values; no behaviour beyond what follows from their fields.

Axis suffixes: `_T` tokens of one trajectory, `_G` members of a group, `_B` rows of a batch, `_V` vocabulary.
Units stand in names: `_s` seconds, `_mb` MiB, `_tokens`, `_bytes`. What tests say, up to the verdict, is in outcomes.py
and imported from here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from turnwise.errors import InputError
from turnwise.outcomes import Frame as Frame
from turnwise.outcomes import SuiteResult as SuiteResult
from turnwise.outcomes import TestFailure as TestFailure
from turnwise.outcomes import Verdict as Verdict
from turnwise.outcomes import VerdictKind as VerdictKind
from turnwise.usage import Usage


@dataclass(frozen=True)
class SourceDistribution:
    """How the environment of a task made from a real package is built: a source distribution from the package registry.

    `requirements` are what pip installs beside the package (its tests' needs); `import_paths` are put on PYTHONPATH,
    relative to the repository's root.

    >>> SourceDistribution("toolz", "1.0.0", "2c86e3d9…", ("pytest==8.4.2",), ("",)).package
    'toolz'
    """

    package: str
    version: str
    sha256: str
    requirements: tuple[str, ...] = ()
    import_paths: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Installation:
    """How a repository's environment is installed without a container, as far as its row tells.

    All empty where the row tells nothing: the repository's own metadata and the row's date decide then. `python` is a
    minor version ("3.9"). `requirements` is the text of a frozen requirements file, `requirement_files` and
    `environment_files` are paths in the repository, `environment` is the text of a conda environment file.
    `pre_install` and `install` are shell commands at the repository's root, `pip_packages` are arguments of pip.

    >>> Installation(python="3.9", pip_packages=("pytest",), install=("pip install -e .",)).python
    '3.9'
    """

    python: str = ""
    pre_install: tuple[str, ...] = ()
    requirements: str = ""
    requirement_files: tuple[str, ...] = ()
    environment: str = ""
    environment_files: tuple[str, ...] = ()
    pip_packages: tuple[str, ...] = ()
    install: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkout:
    """How the environment of a task of a public repository is made: its commit, and what it is installed by.

    The repository is the task's `repo` at the task's `base_commit`. With `setup_patch` (SWE-smith, whose rows bring the
    bug as a patch) that commit is what the patch is applied to, and the agent starts after it. `image` is the row's
    container image, whose repository lies at `workdir`.

    >>> Checkout(image="swebench/sweb.eval.x86_64.psf_1776_requests-2317:latest").workdir
    '/testbed'
    """

    installation: Installation = Installation()
    image: str = ""
    workdir: str = "/testbed"
    setup_patch: str = ""


@dataclass(frozen=True)
class TestRun:
    """How a row wants its hidden tests run and its log read, where that is not left to us.

    `command` runs at the repository's root in the task's environment. `log_parser` is a name of swebench's
    `PARSER_REGISTRY`, `eval_type` its "pass_and_fail" or "fail_only".

    >>> TestRun("pytest -rA tests/test_api.py", "parse_log_pytest").eval_type
    'pass_and_fail'
    """

    __test__: ClassVar[bool] = False  # keeps pytest from collecting this class by its name

    command: str
    log_parser: str
    eval_type: str = "pass_and_fail"


@dataclass(frozen=True)
class Task:
    """One SWE-bench-format row: an issue to resolve and the hidden tests that decide whether it is.

    `patch` is the gold patch (unified diff against `base_commit`), `test_patch` brings the hidden tests. Test ids are
    pytest node ids relative to the repository's root, or what the log parser of `test_run` calls them.
    """

    instance_id: str
    repo: str
    base_commit: str
    patch: str
    test_patch: str
    problem_statement: str
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    environment: SourceDistribution | Checkout
    test_run: TestRun | None = None  # None: our own runner on `test_files`
    hints_text: str = ""
    created_at: str = ""
    version: str = ""
    environment_setup_commit: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sdist(self) -> SourceDistribution:
        """The environment of a task made from a package. Raises InputError for a task of a checked-out repository."""
        if not isinstance(self.environment, SourceDistribution):
            raise InputError(f"{self.instance_id}: is a task of a repository, not of a source distribution")
        return self.environment

    @property
    def test_files(self) -> tuple[str, ...]:
        """The files that the hidden tests live in, sorted; what verification runs and restores."""
        return tuple(sorted({test_id.split("::")[0] for test_id in self.fail_to_pass + self.pass_to_pass}))


@dataclass(frozen=True)
class Limits:
    """What one sandbox may use; `output_bytes` holds per command."""

    memory_mb: int = 1024
    processes: int = 64
    disk_mb: int = 256
    output_bytes: int = 64_000
    cpus: float = 1.0


@dataclass(frozen=True)
class Mount:
    """A host file or directory shown read-only inside a sandbox."""

    host: Path
    inside: str


@dataclass(frozen=True)
class SandboxSpec:
    """What a sandbox is made of: a read-only `root` that appears, writable by copy on write, at `workdir`.

    With `image` the repository lies in the image at `workdir` and there is no `root`; without it there must be one. It
    is a reference for docker and kubernetes, and for local the folder that `unpack_image` made.

    `setup` are the commands that the sandbox's shell runs first, before the sandbox is handed out (not again in a fork
    of it): what they export stays, and a sandbox in which one fails does not start.
    """

    root: Path | None
    workdir: str = "/testbed"
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    network: bool = False
    image: str = ""
    setup: tuple[str, ...] = ()

    @property
    def tree(self) -> Path:
        """`root`, for what works on a directory. Raises InputError where the spec has an image instead."""
        if self.root is None:
            raise InputError(f"a sandbox of image {self.image!r} needs a backend that starts images, such as docker")
        return self.root


@dataclass(frozen=True)
class ExecResult:
    """What one command did. `output` is stdout and stderr as they came; what is over the limit is left out between the
    first `head_chars` characters and the rest. `exit_code` is 124 when `timed_out`; -N when signal N ended the command.
    """

    output: str
    exit_code: int
    duration_s: float
    timed_out: bool = False
    left_out_bytes: int = 0
    head_chars: int = 0


@dataclass(frozen=True)
class Sampling:
    """How a response is sampled.

    The defaults are the only ones fit for training: temperature 1, every truncation off (PAPER.md, finding 2).
    """

    max_tokens: int
    stop_token_ids: tuple[int, ...] = ()
    seed: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True)
class Sample:
    """One sampled response, with the stop token that ended it.

    `logprobs` are of the temperature-1 distribution, one per token. `usage` is an endpoint's own count, if it gave one.
    `sample_s` is what the response took where the wait for it says nothing about the policy (None: the whole wait).
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    policy_version: int
    stopped: bool  # by a stop token; False: cut at max_tokens
    usage: Usage | None = None
    sample_s: float | None = None


class FormatError(StrEnum):
    """The two format errors of the paper (appendix F): each returns an error observation and the episode goes on."""

    NO_COMMAND = "no_command"
    MULTIPLE_COMMANDS = "multiple_commands"


class StopReason(StrEnum):
    """Why an episode ended; here, and nowhere else, it is decided whether the policy or the infrastructure did it."""

    SUBMITTED = "submitted"
    TURN_LIMIT = "turn_limit"
    CONTEXT_LIMIT = "context_limit"
    EPISODE_TIMEOUT = "episode_timeout"
    FORMAT_ERRORS = "format_errors"
    CONTENT_FILTER = "content_filter"
    SANDBOX_FAILURE = "sandbox_failure"
    POLICY_FAILURE = "policy_failure"
    VERIFICATION_FAILURE = "verification_failure"
    TASK_FAILURE = "task_failure"

    @property
    def is_infrastructure(self) -> bool:
        """True where the episode says nothing about the policy: retried, then out of loss and group statistics."""
        machine = (StopReason.SANDBOX_FAILURE, StopReason.POLICY_FAILURE, StopReason.VERIFICATION_FAILURE)
        return self in (*machine, StopReason.TASK_FAILURE)


@dataclass(frozen=True)
class Turn:
    """One response of the model and what the environment answered.

    Exactly one of `command` and `format_error` is set. `start:stop` is the span of the sampled tokens in the
    trajectory's flat sequence. `response` is the decoded text of that span without the stop token.
    """

    index: int
    response: str
    command: str | None
    format_error: FormatError | None
    observation: str
    exit_code: int | None
    start: int
    stop: int
    policy_version: int
    sample_s: float
    exec_s: float
    usage: Usage | None = None  # by an endpoint's count, whose tokens are not those of the span

    @property
    def sampled_tokens(self) -> int:
        """The model's tokens in the response."""
        return self.stop - self.start if self.usage is None else self.usage.completion_tokens


@dataclass(frozen=True)
class Trajectory:
    """One whole episode as one flat token sequence.

    `token_ids_T` int64, `action_mask_T` bool (True on tokens the policy sampled), `behavior_logprobs_T` float32
    (0 where the mask is False). Sampled tokens are kept as sampled, never re-tokenized; observations are appended,
    never merged. `left_out` names, in a sentence each, what of the agent's work its patch does not carry.
    """

    episode_id: str
    task_id: str
    token_ids_T: NDArray[np.int64]
    action_mask_T: NDArray[np.bool_]
    behavior_logprobs_T: NDArray[np.float32]
    turns: tuple[Turn, ...]
    stop_reason: StopReason
    patch: str = ""
    verdict: Verdict | None = None
    rewards: Mapping[str, float] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def reward(self) -> float:
        """The terminal reward: the sum of its components."""
        return sum(self.rewards.values())

    @property
    def resolved(self) -> bool:
        """True where evaluation counts the task as resolved."""
        return self.verdict is not None and self.verdict.resolved

    @property
    def rewarded(self) -> bool:
        """True where training rewards the patch."""
        return self.verdict is not None and self.verdict.rewarded


@dataclass(frozen=True)
class Group:
    """The trajectories of one task under one sampling policy; infrastructure failures are already out."""

    task_id: str
    trajectories: tuple[Trajectory, ...]
