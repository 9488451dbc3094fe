"""Rows of SWE-bench Pro (huggingface.co/datasets/ScaleAI/SWE-bench_Pro), as far as pytest runs their tests."""

import shlex
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from turnwise.tasks.formats.fields import (
    ForeignRow,
    InstanceId,
    Repository,
    Revision,
    SomeTestIds,
    TestIds,
    Text,
    decoded,
    told_beside,
)
from turnwise.tasks.formats.rebench import with_interface
from turnwise.types import Checkout, Task, TestRun


class ProRow(ForeignRow):
    """A row whose lists are written as Python prints them.

    Tests in other languages are run by scripts that the rows do not hold; those rows are refused.
    """

    instance_id: InstanceId
    repo: Repository
    base_commit: Revision
    patch: Text
    test_patch: Text
    problem_statement: Text
    fail_to_pass: SomeTestIds
    pass_to_pass: TestIds = ()
    selected_test_files_to_run: Annotated[tuple[Text, ...], BeforeValidator(decoded), Field(min_length=1)]
    repo_language: Literal["python"]
    dockerhub_tag: Text
    requirements: str = ""
    interface: str = ""

    def task(self) -> Task:
        """The task; requirements and interface are told with the issue, as the benchmark's authors do."""
        own = ("instance_id", "repo", "base_commit", "patch", "test_patch", "fail_to_pass", "pass_to_pass")
        issue = "\n\n".join(text for text in (self.problem_statement, self.requirements) if text.strip())
        return Task(
            **told_beside(self) | {name: getattr(self, name) for name in own},
            problem_statement=with_interface(issue, self.interface),
            environment=Checkout(image=f"jefzda/sweap-images:{self.dockerhub_tag}", workdir="/app"),
            test_run=TestRun(f"pytest -rA {shlex.join(self.selected_test_files_to_run)}", "parse_log_pytest"),
        )
