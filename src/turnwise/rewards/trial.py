"""One patch before the hidden tests of its task, in a fresh sandbox (DESIGN.md, rule 1)."""

import secrets
import shlex
from dataclasses import dataclass, field

from turnwise.rewards.command import PythonCommand, read_command
from turnwise.rewards.judge import Run
from turnwise.rewards.protect import apply_options, configuration_of
from turnwise.rewards.suite import read_record, results_path, suite_command, supervised_command
from turnwise.sandbox import Sandbox
from turnwise.types import Task, TestRun

PATCH_PATH, HIDDEN_PATH = "/tmp/turnwise-submitted.diff", "/tmp/turnwise-hidden.diff"
HIDDEN_REFUSED, PATCH_REFUSED = 96, 97
GIT_APPLY = "git -c safe.directory='*' apply --whitespace=nowarn"


@dataclass(frozen=True)
class Trial:
    """One patch before the hidden tests of its task: what is written into the sandbox, and the command that runs there.

    `explain`: the record also says why tests failed (see `run_suite`; only where pytest runs them). `tests` is a patch
    in the place of the task's own test patch. Nothing else may tell one trial from another: what runs in it sees that.
    `secret` seals the record of the run. It comes into the sandbox as the first line of the hidden tests' patch, where
    git passes over it as over the text of a commit.
    """

    task: Task
    patch: str
    explain: bool = False
    tests: bytes | None = None
    results: str = field(default_factory=results_path)
    secret: bytes = field(default_factory=lambda: secrets.token_hex(16).encode())

    async def run(self, sandbox: Sandbox, timeout_s: float) -> Run:
        """Do it. Raises SandboxError."""
        tests = with_newline(self.task.test_patch).encode() if self.tests is None else self.tests
        hidden = configuration_of(self.task, self.patch).encode() + tests
        await sandbox.write(HIDDEN_PATH, self.secret + b"\n" + hidden)
        await sandbox.write(PATCH_PATH, with_newline(self.patch).encode())
        done = await sandbox.exec(self.script(hidden), timeout_s)
        record = await _read(sandbox, self.results)
        log = None if self.task.test_run is None else await _read(sandbox, self.results + ".log")
        return Run(
            done,
            record=None if record is None else read_record(record.decode(errors="replace"), self.secret),
            log=log,
            command=self._command,
            hidden_refused=done.exit_code == HIDDEN_REFUSED,
            patch_refused=done.exit_code == PATCH_REFUSED,
        )

    def script(self, hidden: bytes) -> str:
        """One subshell, because the sandbox's own shell must outlive a refused patch."""
        options = shlex.join(apply_options(self.task, self.patch))
        steps = [f"{GIT_APPLY} {HIDDEN_PATH} || exit {HIDDEN_REFUSED}"] if hidden.strip() else []
        # Git itself says which files it writes: it reads more spellings of a name than a parser of ours would know.
        apply = f"{GIT_APPLY} --numstat -z --apply {options} {PATCH_PATH} >{self._suspects}"
        steps += [f"{apply} || exit {PATCH_REFUSED}", f"rm -f {PATCH_PATH}"]
        return "(\n" + "\n".join([*steps, self._tests()]) + "\n)"

    def _tests(self) -> str:
        command, run = self._command, self.task.test_run
        if run is None:
            files = self.task.test_files
            return suite_command(self.results, files, self.explain, secret=HIDDEN_PATH, suspects=self._suspects)
        head = [self.results, HIDDEN_PATH]
        if command is None:
            return supervised_command([*head, "shell", run.command])
        ours = (f"TURNWISE_FOLDER={command.folder}", *(() if command.here else ("TURNWISE_HERE=",)))
        assignments = (*ours, *command.assignments)
        if command.is_pytest:
            mode = "own-explain" if self.explain else "own"
            words = [*head, "pytest", mode, self._suspects, *command.arguments]
            return supervised_command(words, command.python, assignments)
        words = [*head, "script", self._suspects, run.command, *command.program, *command.arguments]
        return supervised_command(words, command.python, assignments)

    @property
    def _suspects(self) -> str:
        return self.results + ".suspects"

    @property
    def _command(self) -> PythonCommand | None:
        run: TestRun | None = self.task.test_run
        return None if run is None else read_command(run.command)


async def _read(sandbox: Sandbox, path: str) -> bytes | None:
    try:
        return await sandbox.read(path)
    except FileNotFoundError:
        return None


def with_newline(text: str) -> str:
    """A patch as git wants it."""
    return text if text.endswith("\n") else text + "\n"
