"""Rows of SWE-bench (full, Lite, Verified), and of SWE-Gym, which keeps its classic form.

A classic row says neither how its repository is installed nor how it is tested: that is looked up (facts.py). A newer
one (since swebench 5) brings its `eval_script`, whose commands come first; what the script leaves to the image, such
as the version of Python, is still looked up.
"""

import shlex
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, Field

from turnwise.tasks.formats.commands import parse_eval_script
from turnwise.tasks.formats.facts import facts_of, test_files
from turnwise.tasks.formats.fields import SweBenchRow, Text, told
from turnwise.types import Checkout, Installation, Task, TestRun


def _with_test_command(script: str) -> str:
    parse_eval_script(script)
    return script


class ClassicRow(SweBenchRow):
    """A row with SWE-bench's own fields alone, and an image where somebody added it."""

    image: str = Field(default="", validation_alias=AliasChoices("image", "image_name", "docker_image"))

    def task(self) -> Task:
        """The task; of a repository that nothing is known of, its tests are run by pytest and it has no image.

        Raises TaskError for a version that facts cannot be looked up by, and for a test patch that is no diff.
        """
        facts = facts_of(self.repo, self.version)
        if facts is None:
            command = f"pytest -rA {shlex.join(test_files(self.test_patch))}"
            return Task(
                **told(self), environment=Checkout(image=self.image), test_run=TestRun(command, "parse_log_pytest")
            )
        environment = Checkout(facts.installation, self.image or facts.image(self.instance_id))
        return Task(**told(self), environment=environment, test_run=facts.test_run(self.test_patch))


class ScriptedRow(SweBenchRow):
    """A newer row, which brings the script that it is graded by."""

    eval_script: Annotated[Text, AfterValidator(_with_test_command)]
    log_parser: Text
    eval_type: Literal["pass_and_fail", "fail_only"] = "pass_and_fail"
    image: str = ""

    def task(self) -> Task:
        """The task. Raises TaskError for a version that facts cannot be looked up by."""
        script = parse_eval_script(self.eval_script)
        facts = facts_of(self.repo, self.version)
        known = facts.installation if facts else Installation()
        installation = replace(
            known,
            pre_install=known.pre_install + script.pre_install,
            install=script.install or known.install,
            env=dict(known.env) | script.env,
        )
        image = self.image or (facts.image(self.instance_id) if facts else "")
        test_run = TestRun(script.command, self.log_parser, self.eval_type)
        return Task(**told(self), environment=Checkout(installation, image), test_run=test_run)
