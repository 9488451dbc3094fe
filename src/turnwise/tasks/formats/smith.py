"""Rows of SWE-smith (huggingface.co/datasets/SWE-bench/SWE-smith): bugs put into a mirror of a repository."""

import shlex
from typing import Annotated

from pydantic import Field

from turnwise.errors import TaskError
from turnwise.tasks.diffs import reversed_patch
from turnwise.tasks.formats.fields import ForeignRow, InstanceId, SomeTestIds, TestIds, Text, told_beside
from turnwise.types import Checkout, Installation, Task, TestRun

_COMMAND = "pytest -rA --disable-warnings --color=no --tb=no"
_REGISTRY = "jyangballin"  # where the images of rows that name no registry are published


class SmithRow(ForeignRow):
    """A row whose `patch` is the bug; `repo` is swesmith/<owner>__<name>.<first 8 of the commit>."""

    instance_id: InstanceId
    repo: Annotated[str, Field(pattern=r"^swesmith/\S+__\S+\.[0-9a-f]{8}$")]
    patch: Text
    problem_statement: Text
    FAIL_TO_PASS: SomeTestIds
    PASS_TO_PASS: TestIds = ()
    image_name: Text

    def task(self) -> Task:
        """The task: the bug is its `setup_patch` on the mirror's HEAD, and undoing it the gold patch.

        There is no test patch: the tests lie in the mirror. Those that decide are the test command's files.
        Raises TaskError for a bug that its text alone cannot undo.
        """
        files = sorted({test_id.partition("::")[0] for test_id in self.FAIL_TO_PASS + self.PASS_TO_PASS})
        installation = Installation("3.10", pip_packages=("pytest",), install=("python -m pip install -e .",))
        image = self.image_name if "/" in self.image_name else f"{_REGISTRY}/{self.image_name.replace('__', '_1776_')}"
        owner_name, _, commit = self.repo.removeprefix("swesmith/").rpartition(".")
        told = told_beside(self)
        try:
            gold = reversed_patch(self.patch)
        except TaskError as error:
            raise TaskError(f"field 'patch': {error}") from error
        return Task(
            **told | {"meta": {"origin": owner_name.replace("__", "/", 1), "origin_commit": commit} | told["meta"]},
            instance_id=self.instance_id,
            repo=self.repo,
            base_commit="HEAD",
            patch=gold,
            test_patch="",
            problem_statement=self.problem_statement,
            fail_to_pass=self.FAIL_TO_PASS,
            pass_to_pass=self.PASS_TO_PASS,
            environment=Checkout(installation, image, setup_patch=self.patch),
            test_run=TestRun(f"{_COMMAND} {shlex.join(files)}", "parse_log_pytest"),
        )
