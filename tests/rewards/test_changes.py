"""What commands do to a repository, as a patch; by real git in a real sandbox."""

import pytest

from turnwise.errors import SandboxError
from turnwise.rewards.changes import changes


async def test_the_first_command_that_succeeds_counts_alone(small_world, backend):
    async with backend.create(small_world.spec) as sandbox:
        patch = await changes(sandbox, ["echo a > new.txt && false", "echo 1 > calc.py", "echo 2 > calc.py"])

    assert b"+1\n" in patch
    assert b"new.txt" not in patch


async def test_files_that_are_not_looked_at_do_not_count(small_world, backend):
    async with backend.create(small_world.spec) as sandbox:
        patch = await changes(sandbox, ["echo 1 > calc.py; echo 1 > new.txt"], ["new.txt", "never.txt"])

    assert b"new.txt" in patch
    assert b"calc.py" not in patch


async def test_what_takes_too_long_is_not_taken_for_unchanged(small_world, backend):
    async with backend.create(small_world.spec) as sandbox:
        with pytest.raises(SandboxError, match="could not be told in 1 s"):
            await changes(sandbox, ["sleep 30"], timeout_s=1)
        assert await changes(sandbox, ["false"]) == b""
