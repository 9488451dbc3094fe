"""Commands of rows: made editable, freed of tox, and read out of a script."""

import pytest

from turnwise.tasks.formats.commands import editable, parse_eval_script, portable, without_tox


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("python -m pip install -e .", "python -m pip install -e ."),
        ("pip install .", "pip install -e ."),
        ("python -m pip install .[test] --verbose", "python -m pip install -e .[test] --verbose"),
        ("python -m pip install -v '.[dev]'", "python -m pip install -v -e '.[dev]'"),
        ("pip install -r requirements.txt .; true", "pip install -r requirements.txt -e .; true"),
        ("pip install -ve . --no-build-isolation", "pip install -ve . --no-build-isolation"),
        ("pip install --editable .", "pip install --editable ."),
        ("python setup.py build; python setup.py install", "python setup.py build; python -m pip install -e ."),
        ("python3 setup.py develop", "python -m pip install -e ."),
        ("pip install numpy==1.2 ./vendored", "pip install numpy==1.2 ./vendored"),
        ("pip install -r ./requirements.txt", "pip install -r ./requirements.txt"),
        ("make init", "make init"),
    ],
)
def test_every_installation_of_the_repository_is_editable(given, wanted):
    assert editable(given) == wanted


def test_tox_in_the_current_environment_is_its_pytest():
    assert without_tox("tox --current-env -epy39 -v -- tests/a.py") == "pytest -rA --durations 25 tests/a.py"
    assert without_tox("pytest -rA tests/tox.py") == "pytest -rA tests/tox.py"


def test_only_generated_locales_are_replaced():
    assert portable({"LC_ALL": "en_US.utf8", "LANG": "de_DE.UTF-8"}) == {"LC_ALL": "C.UTF-8", "LANG": "de_DE.UTF-8"}


def test_a_script_with_nothing_but_markers_and_a_command():
    script = parse_eval_script(": '>>>>> Start Test Output'\npytest a.py\npytest b.py\n: '>>>>> End Test Output'\n")
    assert (script.command, script.pre_install, script.install, script.env) == ("pytest a.py\npytest b.py", (), (), {})


@pytest.mark.parametrize(
    "script",
    ["", ": '>>>>> Start Test Output'\npytest", ": '>>>>> Start Test Output'\n\n: '>>>>> End Test Output'"],
)
def test_a_script_without_a_command_between_its_markers_is_refused(script):
    with pytest.raises(ValueError, match="has no test command"):
        parse_eval_script(script)
