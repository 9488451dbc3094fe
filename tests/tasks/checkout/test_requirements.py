"""Requirement texts and conda environments, as rows bring them."""

import pytest

from turnwise.errors import TaskError
from turnwise.tasks.checkout.requirements import clean, pinned_names, read_conda, words

EXPORTED = """\
name: verde
channels: [conda-forge]
dependencies:
  - _libgcc_mutex=0.1=main
  - ca-certificates=2025.2.25=h06a4308_0
  - libffi=3.4.4=h6a678d5_1
  - numpy=1.26.4=py39h474f0d3_0
  - attrs=25.3.0=pyh71513ae_0
  - matplotlib-base=3.9.4=py39h16632d1_0
  - pip=25.0=py39h06a4308_0
  - python=3.9.21=he870216_1
  - setuptools=75.8.0=py39h06a4308_0
  - pip:
      - six==1.17.0
prefix: /opt/conda
"""


def test_an_exported_conda_environment_gives_its_python_packages():
    conda = read_conda(EXPORTED, "row")
    assert conda.lines == ("numpy==1.26.4", "attrs==25.3.0", "matplotlib==3.9.4", "six==1.17.0")
    assert conda.python == "3.9"
    assert conda.seeds == ("pip==25.0", "setuptools==75.8.0")


def test_a_written_conda_environment_keeps_open_versions_open():
    text = "dependencies:\n  - python>=3.8\n  - conda-forge::xarray\n  - numpy >=1.20\n  - dask-core=2023.1\n"
    conda = read_conda(text, "row")
    assert (conda.lines, conda.python) == (("xarray", "numpy", "dask==2023.1"), "")


def test_packages_of_conda_are_those_of_the_index_and_what_they_lack_there():
    text = "dependencies:\n- iris\n- cfgrib=0.9\n"
    assert read_conda(text, "row").packages == {"scitools-iris": "", "cfgrib": "0.9", "ecmwflibs": ""}


PIPS = [f"dependencies: [{{pip: {part}}}]" for part in ("3", "six", "[1]")]


@pytest.mark.parametrize("text", ["a: [", "just words", "dependencies: 3", "[1, 2]", *PIPS])
def test_what_is_no_conda_environment_is_named(text):
    with pytest.raises(TaskError, match="row x: "):
        read_conda(text, "row x")


def test_what_only_the_authors_machine_had_is_left_out_and_told():
    text = """\
# pip freeze
attrs==25.3.0  # via pytest
-e git+https://github.com/Acme/Tiny.git@0123#egg=tiny
-e git+https://github.com/other/dep.git@4567#egg=dep
numpy @ file:///home/conda/numpy_1/work
scipy @ file:///home/conda/scipy_1/work
importlib_metadata @ file:///croot/importlib/work
"""
    pins = clean(text, "acme/tiny", {"numpy": "1.26.4", "importlib-metadata": "8.5.0"})
    dep = "git+https://github.com/other/dep.git@4567#egg=dep"
    assert pins.lines == ("attrs==25.3.0", dep, "numpy==1.26.4", "importlib_metadata==8.5.0")
    assert [line.split(":")[0] for line in pins.left_out] == ["-e git+https", "scipy"]


def test_several_packages_in_one_entry_are_several():
    given = ["pytest pytest-cov", "numpy >= 1.2", "tomli; python_version < '3.11'", "-r 'more.txt'"]
    assert words(given) == ["pytest", "pytest-cov", "numpy >= 1.2", "tomli; python_version < '3.11'", "-r", "more.txt"]


def test_only_exact_pins_may_be_younger_than_the_row():
    assert pinned_names(["b==2", "a[x]==1", "c>=1", "-r file", "d"]) == ("a", "b")
