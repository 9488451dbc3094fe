"""The registry: each row is told by its fields, written back as our own, and refused by the field that it lacks."""

import json
import re

import pytest

from turnwise.errors import TaskError
from turnwise.tasks.formats import FORMATS, row, task_of
from turnwise.tasks.formats.own import OwnRow
from turnwise.types import Checkout, TestRun

from .rows import ALL, CLASSIC, REBENCH, SCRIPTED, SMITH

MARKS = ("install_config", "eval_script")  # without them a row is a classic one, which is whole
REQUIRED = [(form, name) for form in FORMATS if form.name in ALL for name in form.required if name not in MARKS]


@pytest.mark.parametrize("name", ALL)
def test_a_format_is_told_by_its_rows_fields(name):
    assert next(form.name for form in FORMATS if form.recognises(ALL[name])) == name
    assert task_of(ALL[name]).meta["format"] == name


@pytest.mark.parametrize("name", ALL)
def test_our_own_row_of_a_foreign_task_gives_the_task_again(name):
    task = task_of(ALL[name])
    ours = json.loads(json.dumps(row(task)))
    assert next(form for form in FORMATS if form.recognises(ours)).model is OwnRow
    assert task_of(ours) == task
    assert isinstance(hash(task_of(ours).environment.installation.install), int)  # tuples, not lists


@pytest.mark.parametrize(("form", "field"), REQUIRED, ids=lambda part: getattr(part, "name", part))
def test_a_row_without_a_field_that_it_needs_is_refused_by_it(form, field):
    lacking = {name: value for name, value in ALL[form.name].items() if name != field}
    with pytest.raises(TaskError, match=field):
        task_of(lacking)


def test_a_row_without_the_fields_that_mark_a_newer_format_is_a_classic_one():
    plain = {name: value for name, value in ALL["SWE-rebench v2"].items() if name != "install_config"}
    task = task_of(plain)
    assert task.meta["format"] == "SWE-bench"
    assert task.environment == Checkout(image="docker.io/swerebenchv2/some-lib:7")
    assert task.test_run == TestRun("pytest -rA tests/test_core.py", "parse_log_pytest")


HALF, OURS = "\ud800", row(task_of(REBENCH))


def installed_by(**installation):
    return OURS | {"environment": {"kind": "checkout", "installation": installation}}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (CLASSIC | {"created_at": "9999-99-99"}, "field 'created_at': '9999-99-99' is no day"),
        (CLASSIC | {"repo": "../calc"}, "field 'repo': should be OWNER/NAME"),
        (OURS | {"repo": "acme/.."}, "field 'repo': should be OWNER/NAME"),
        (CLASSIC | {"created_at": float("inf")}, "field 'created_at': is no time in milliseconds"),
        (CLASSIC | {"created_at": 1e300}, "field 'created_at': is no time in milliseconds"),
        (CLASSIC | {"FAIL_TO_PASS": "{[1]: 2}"}, "field 'FAIL_TO_PASS': is written neither"),
        (CLASSIC | {"FAIL_TO_PASS": "[" * 200_000}, "field 'FAIL_TO_PASS': is written neither"),
        (CLASSIC | {"FAIL_TO_PASS": f"[{'1' * 5000}]"}, "field 'FAIL_TO_PASS': is written neither"),
        (CLASSIC | {"instance_id": "a\0b"}, "field 'instance_id': may hold no control"),
        (CLASSIC | {"instance_id": "a\x1bb"}, "field 'instance_id': may hold no control"),
        (CLASSIC | {"instance_id": "é" * 101}, "field 'instance_id': may hold no control character and at most 200"),
        (OURS | {"created_at": "0000-01-01"}, "field 'created_at': '0000-01-01' is no day"),
        (CLASSIC | {"FAIL_TO_PASS": '["a\\u0000"]'}, "field 'FAIL_TO_PASS': holds a NUL"),
        (CLASSIC | {"problem_statement": HALF}, "field 'problem_statement': "),
        (CLASSIC | {"meta": json.dumps({"a": [HALF]})}, "field 'meta.a': holds half a character"),
        (OURS | {"meta": {"a": [{HALF: 1}]}}, "field 'meta.a': holds half a character"),
        (REBENCH | {"meta": "{'a': {(1, 2): 3}}"}, "field 'meta': is not to be written as JSON"),
        (installed_by(install=["echo \0"]), "field 'environment.installation.install': holds a NUL"),
        (installed_by(env={"A": "\0"}), "field 'environment.installation.env.A': holds a NUL"),
        (installed_by(env={"A=B": ""}), "field 'environment.installation.env': 'A=B' can't be the name"),
        (installed_by(env={"": "b"}), "field 'environment.installation.env': '' can't be the name"),
        (installed_by(requirement_files=["/etc/passwd"]), "installation.requirement_files': '/etc/passwd' is not in"),
        (installed_by(environment_files=["a/../../b"]), "installation.environment_files': 'a/../../b' is not in"),
    ],
)
def test_what_nothing_can_be_built_or_written_of_is_refused_by_its_field(raw, message):
    with pytest.raises(TaskError, match=re.escape(message)):
        task_of(raw)


def test_nulls_are_fields_that_are_not_there():
    assert task_of(CLASSIC | {"hints_text": None, "eval_script": None}) == task_of(CLASSIC | {"hints_text": ""})


def test_a_row_of_no_format_is_told_what_the_nearest_needs():
    with pytest.raises(TaskError, match=r"no known format; for SWE-bench it lacks FAIL_TO_PASS$"):
        task_of({name: value for name, value in CLASSIC.items() if name != "FAIL_TO_PASS"})
    with pytest.raises(TaskError, match="no known format; for SWE-bench it lacks instance_id, repo"):
        task_of({"question": "?"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"FAIL_TO_PASS": "[]"}, "field 'FAIL_TO_PASS': .* at least 1"),
        ({"FAIL_TO_PASS": "one two"}, "field 'FAIL_TO_PASS': is written neither as JSON nor"),
        ({"PASS_TO_PASS": [None]}, r"field 'PASS_TO_PASS\.0'"),
        ({"instance_id": "../x"}, "field 'instance_id': may hold no slash"),
        ({"repo": "django"}, "field 'repo'"),
        ({"base_commit": "--upload-pack=x"}, "field 'base_commit'"),
        ({"version": "unknown"}, "field 'version': 'unknown' does not tell how django/django is installed"),
        ({"test_patch": "@@ -1 +1 @@\n"}, "field 'test_patch': is no unified diff"),
    ],
)
def test_malformed_fields_are_refused(change, message):
    with pytest.raises(TaskError, match=message):
        task_of(CLASSIC | change)


def test_scripts_without_markers_and_bugs_that_cannot_be_undone_are_refused():
    with pytest.raises(TaskError, match="field 'eval_script': has no test command between"):
        task_of(SCRIPTED | {"eval_script": "pytest"})
    with pytest.raises(TaskError, match=r"field 'patch': changes x\.png in a way"):
        task_of(SMITH | {"patch": "diff --git a/x.png b/x.png\nBinary files a/x.png and b/x.png differ\n"})


def test_what_task_has_no_field_for_is_kept_as_metadata():
    assert task_of(CLASSIC).meta == {"format": "SWE-bench", "difficulty": "<15 min fix"}
    assert task_of(ALL["SWE-rebench v1"]).meta["llm_score"]["test_score"] == 2
    assert task_of(ALL["SWE-rebench v1"]).meta["license_name"] == "MIT License"


@pytest.mark.parametrize(("form", "field"), REQUIRED, ids=lambda part: getattr(part, "name", part))
@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_field_that_is_null_or_nan_is_missing(form, field, missing):
    with pytest.raises(TaskError, match=field) as refused:
        task_of(ALL[form.name] | {field: missing})
    assert "nan" not in str(refused.value).replace("container_name", "").lower()


@pytest.mark.parametrize("form", [form for form in FORMATS if form.name in ALL], ids=lambda form: form.name)
def test_a_field_that_may_be_missing_may_be_nan(form):
    spare = {name for name, field in form.model.model_fields.items() if not field.is_required()}
    spare -= {*MARKS, "version"}  # by which Django's installation is looked up
    kept = {name: value for name, value in ALL[form.name].items() if name not in spare}
    nan = dict.fromkeys(spare, float("nan"))
    assert task_of(nan | kept) == task_of(kept)


def test_nan_inside_of_a_field_is_null():
    config = REBENCH["install_config"] | {"pip_packages": float("nan"), "env_vars": {"A": "1", "B": float("nan")}}
    for written in (config, json.dumps(config)):
        installation = task_of(REBENCH | {"install_config": written}).environment.installation
        assert installation.env == {"A": "1"}
        assert "nan" not in repr(installation)
    with pytest.raises(TaskError, match="FAIL_TO_PASS"):
        task_of(CLASSIC | {"FAIL_TO_PASS": '["a", NaN]'})
