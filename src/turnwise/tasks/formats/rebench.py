"""Rows of SWE-rebench (huggingface.co/datasets/nebius/SWE-rebench and SWE-rebench-V2)."""

import re
import shlex
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from turnwise.tasks.formats.commands import editable
from turnwise.tasks.formats.facts import test_files
from turnwise.tasks.formats.fields import Lines, SomeLines, SweBenchRow, Text, decoded, told
from turnwise.types import Checkout, Installation, Task, TestRun

_FILES = ("requirements.txt", "environment.yml")


def _set_ones(variables: object) -> object:
    """Without the nulls that a table of many rows has for the variables of others."""
    given = variables.items() if isinstance(variables, dict) else ()
    return {name: value for name, value in given if value is not None}


def _words(lines: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for line in lines for word in shlex.split(line))


def _named_ones(packages: object) -> object:
    return () if packages in (None, *_FILES) else _words((str(packages),))


class InstallConfig(BaseModel):
    """`install_config` of version 1. Its `packages` are names, or the name of a file that the row also brings."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    python: Text
    test_cmd: SomeLines
    log_parser: Text
    install: Lines = ()
    pre_install: Lines = ()
    pip_packages: Annotated[Lines, AfterValidator(_words)] = ()
    packages: Annotated[tuple[str, ...], BeforeValidator(_named_ones)] = ()
    reqs_path: Lines = ()
    env_yml_path: Lines = ()
    env_vars: Annotated[dict[str, str], BeforeValidator(_set_ones)] = Field(default_factory=dict)


class RebenchRow(SweBenchRow):
    """A row of version 1: `requirements` and `environment` are what pip and conda had installed in its image."""

    install_config: Annotated[InstallConfig, BeforeValidator(decoded)]
    requirements: str = ""
    environment: str = ""
    docker_image: str = ""

    def task(self) -> Task:
        """The task, tested as the official harness does. Raises TaskError for a test patch that is no diff."""
        config = self.install_config
        command = f"{' && '.join(config.test_cmd)} {shlex.join(test_files(self.test_patch))}"
        installation = Installation(
            python=config.python,
            pre_install=config.pre_install,
            requirements=self.requirements,
            requirement_files=config.reqs_path,
            environment=self.environment,
            environment_files=config.env_yml_path,
            pip_packages=config.packages + config.pip_packages,
            install=tuple(editable(line) for line in config.install),
            env=config.env_vars,
        )
        environment = Checkout(installation, self.docker_image)
        return Task(**told(self), environment=environment, test_run=TestRun(command, config.log_parser))


class InstallConfigV2(BaseModel):
    """`install_config` of version 2: the commands that its image was built and is tested by."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    test_cmd: SomeLines
    log_parser: Text
    install: Lines = ()
    base_image_name: str | None = None
    docker_specs: dict[str, Any] | None = None

    @property
    def python(self) -> str:
        """The minor version that the image's base is of; empty where it is no Python image."""
        specs = self.docker_specs or {}
        told = f"{specs.get('python_version') and 'python'} {specs.get('python_version')} {specs.get('python_image')}"
        found = re.search(r"python\D{0,3}(\d+\.\d+)", f"{told} {self.base_image_name}")
        return found.group(1) if found else ""


class RebenchV2Row(SweBenchRow):
    """A row of version 2, of any language. Its repository lies in the image under its own name."""

    install_config: Annotated[InstallConfigV2, BeforeValidator(decoded)]
    image_name: Text
    interface: str = ""

    def task(self) -> Task:
        """The task; the names that hidden tests call are told with the issue, as the data set's authors do."""
        config = self.install_config
        installation = Installation(python=config.python, install=tuple(editable(line) for line in config.install))
        environment = Checkout(installation, self.image_name, workdir=f"/{self.repo.partition('/')[2]}")
        test_run = TestRun("\n".join(config.test_cmd), config.log_parser)
        issue = with_interface(self.problem_statement, self.interface)
        return Task(**told(self) | {"problem_statement": issue}, environment=environment, test_run=test_run)


def with_interface(issue: str, interface: str) -> str:
    """An issue's text with the names, new with its solution, that the hidden tests call."""
    return f"{issue}\n\nImplement these names; tests call them:\n\n{interface}" if interface.strip() else issue
