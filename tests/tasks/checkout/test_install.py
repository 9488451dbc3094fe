"""Commands of rows, read before they are run."""

import pytest

from turnwise.tasks.checkout.install import pip_arguments


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("pip install -e .", ["-e", "."]),
        ("python -m pip install -e '.[dev]' -v", ["-e", ".[dev]", "-v"]),
        ("python3 -m pip install 'numpy<2'", ["numpy<2"]),
        ("pip3 install a b", ["a", "b"]),
        ("pip install a && make", None),
        ("pip install numpy<2", None),  # a redirection
        ("pip install $X", None),
        ("cd sub; pip install .", None),
        ("python setup.py develop", None),
        ("pip install 'a", None),
    ],
)
def test_only_plain_pip_commands_are_read(command, arguments):
    assert pip_arguments(command) == arguments
