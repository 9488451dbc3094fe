"""What the fake does beyond the conformance suite: scripted commands, its little grammar, and dying on demand."""

from pathlib import Path

import pytest

from turnwise.errors import SandboxError
from turnwise.sandbox import FakeBackend, FakeMachine
from turnwise.types import SandboxSpec


def run_tests(machine: FakeMachine, arguments: list[str]) -> tuple[str, int]:
    passed = b"a - b" not in machine.files["/testbed/calc.py"]
    machine.slept_s += 2.0
    return f"{'1 passed' if passed else '1 failed'} {' '.join(arguments)}\n", 0 if passed else 1


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "calc.py").write_text("def add(a, b):\n    return a - b\n")
    return tmp_path


async def test_scripted_commands_see_and_change_the_machine(repository: Path) -> None:
    async with FakeBackend({"pytest": run_tests}).create(SandboxSpec(repository)) as sandbox:
        failing = await sandbox.exec("pytest -q", 10)
        assert (failing.output, failing.exit_code, failing.duration_s) == ("1 failed -q\n", 1, 2.0)
        await sandbox.write("calc.py", b"def add(a, b):\n    return a + b\n")
        assert (await sandbox.exec("pytest", 10)).exit_code == 0
        assert (await sandbox.exec("pytest", 1)).timed_out


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("echo a b > f; echo c >> f; cat f", "a b\nc\n"),
        ("false && echo no || echo yes", "yes\n"),
        ("export A=1; echo \"$A\" '$A' \\$A $B.", "1 $A $A .\n"),
        ("false; echo $?", "1\n"),
        ("cd /tmp && cd .. && pwd", "/\n"),
        ("echo 'one; two' | nothing", "one; two | nothing\n"),
    ],
)
async def test_the_grammar(repository: Path, command: str, output: str) -> None:
    async with FakeBackend().create(SandboxSpec(repository)) as sandbox:
        assert (await sandbox.exec(command, 10)).output == output


async def test_a_sandbox_that_is_told_to_die_is_dead(repository: Path) -> None:
    async with FakeBackend().create(SandboxSpec(repository)) as sandbox:
        sandbox.die()
        with pytest.raises(SandboxError):
            await sandbox.exec("true", 10)
