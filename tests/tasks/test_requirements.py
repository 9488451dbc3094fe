"""What a package declares for its tests, read from every place where packages declare it."""

from email.message import Message

from turnwise.tasks.requirements import declared_requirements


def _metadata(extras=(), requires=()):
    message = Message()
    message["Name"] = "Demo_Package"
    for extra in extras:
        message["Provides-Extra"] = extra
    for text in requires:
        message["Requires-Dist"] = text
    return message


def test_extras(tmp_path):
    requires = [
        "needed-always",
        "hypothesis>=6; extra == 'tests'",
        "pytest-cov; extra == 'tests'",
        "sphinx; extra == 'docs'",
        "uv; extra == 'dev'",
        "pytest-mock; extra == 'dev'",
        "old; extra == 'tests' and python_version < '3'",
    ]
    found = declared_requirements(tmp_path, _metadata(["tests", "docs", "dev"], requires))
    assert found == ["hypothesis>=6", "pytest-mock"]


def test_pyproject_tables(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        "[dependency-groups]\n"
        'test = ["freezegun", {include-group = "shared"}]\nshared = ["PyYAML>5"]\ndocs = ["furo"]\n'
        "[tool.poetry.group.test.dependencies]\nfaker = '*'\n"
        "[tool.poetry.dev-dependencies]\nblack = '*'\npytest-subtests = '*'\n"
        "[tool.hatch.envs.test]\ndependencies = ['tomli-w']\n"
    )
    found = declared_requirements(tmp_path, _metadata())
    assert found == ["freezegun", "PyYAML>5", "faker", "pytest-subtests", "tomli-w"]


def test_requirement_files_and_tox(tmp_path):
    (tmp_path / "requirements-test.txt").write_text("# tools\n-r other.txt\nmock==5.1.0  # pinned\ndemo-package\n")
    (tmp_path / "tox.ini").write_text("[testenv]\ndeps =\n  pytest>=8\n  mock\n  -e .\n  coverage\n")
    (tmp_path / "setup.cfg").write_text("[options]\ntests_require =\n  nose2\n")
    assert declared_requirements(tmp_path, _metadata()) == ["mock==5.1.0", "pytest>=8", "nose2"]


def test_what_cannot_be_read_is_passed_over(tmp_path):
    (tmp_path / "pyproject.toml").write_text("no toml [")
    (tmp_path / "tox.ini").write_text("no section\n")
    assert declared_requirements(tmp_path, _metadata(["test"], ["not a requirement!"])) == []
