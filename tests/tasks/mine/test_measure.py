"""Which tests decide, from literal runs."""

from turnwise.tasks.mine import Measured, settle_tests


def test_only_what_is_the_same_in_all_runs_decides():
    always = {"kept": "passed", "failing": "failed", "skipped": "skipped", "broken": "passed", "never": "failed"}
    before = [{**always, "coin": "passed"}, {**always, "coin": "failed", "once": "passed"}]
    after_always = {"kept": "passed", "failing": "passed", "new": "passed", "skipped": "passed", "broken": "failed"}
    after = [{**after_always, "never": "error", "coin": "passed", "half": "passed"}, {**after_always, "never": "error"}]
    assert settle_tests(before, after) == Measured(("failing", "new"), ("kept",), ("coin", "half", "once"))


def test_a_test_that_cannot_be_collected_without_the_fix_is_one_to_fix():
    assert settle_tests([{}], [{"a": "passed"}]).fail_to_pass == ("a",)
