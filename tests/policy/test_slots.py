import numpy as np

from turnwise.policy.slots import Claim, SlotTable


def prompt(*token_ids):
    return np.array(token_ids, np.int32)


def compute(table, claim):
    table.take(claim.slot, table.pending(claim.slot))


def served(table, session, token_ids):
    claim = table.claim(session, token_ids)
    compute(table, claim)
    table.release(claim.slot)
    return claim


LONG = prompt(*range(100, 140))


def test_a_session_comes_back_to_its_slot_and_holds_all_but_what_is_new():
    table = SlotTable(2, 64)
    assert served(table, "a", LONG[:30]) == Claim(0, 0)
    assert table.claim("a", LONG) == Claim(0, 30)
    assert table.pending(0) == 10
    assert table.take(0, 4) == [130, 131, 132, 133]


def test_the_last_token_of_a_prompt_is_always_computed():
    table = SlotTable(2, 64)
    served(table, "a", LONG)
    assert table.claim("a", LONG) == Claim(0, 39)


def test_a_new_session_copies_the_longest_computed_prefix():
    table = SlotTable(3, 64)
    served(table, "a", LONG[:20])
    served(table, "b", prompt(*LONG[:30], 1))
    assert table.claim("c", prompt(*LONG[:35])) == Claim(2, 30, donor=1)


def test_a_request_waits_for_a_prefix_that_another_is_computing():
    table = SlotTable(3, 64)
    first = table.claim("a", LONG)
    assert table.claim("b", LONG) is None
    compute(table, first)
    assert table.claim("b", LONG) == Claim(1, 39, donor=0)


def test_nobody_waits_for_a_short_prefix():
    table = SlotTable(2, 64)
    table.claim("a", prompt(*LONG[:10], 1, 2, 3))
    assert table.claim("b", prompt(*LONG[:10], 4)) == Claim(1, 0)


def test_slots_are_given_away_ended_first_then_the_longest_unused_never_a_busy_one():
    table = SlotTable(3, 64)
    for session, first in (("a", 1), ("b", 2), ("c", 3)):
        served(table, session, prompt(first, first))
    table.end("b")
    assert table.claim("d", prompt(9, 9)) == Claim(1, 0)
    assert table.claim("e", prompt(8, 8)) == Claim(0, 0)
    assert table.claim("f", prompt(7, 7)) == Claim(2, 0)
    assert table.claim("g", prompt(6, 6)) is None


def test_an_evicted_session_starts_over_in_another_slot():
    table = SlotTable(1, 64)
    served(table, "a", LONG)
    served(table, "b", prompt(1, 2))
    assert table.claim("a", LONG) == Claim(0, 0)


def test_a_session_takes_over_the_ended_slot_that_shares_its_opening():
    table = SlotTable(1, 64)
    served(table, "a", LONG)
    table.end("a")
    assert table.claim("b", prompt(*LONG[:25], 1)) == Claim(0, 25)


def test_sessions_with_the_same_opening_are_a_family_until_one_rewrites_it():
    opening = prompt(*range(100, 180))
    table = SlotTable(4, 128)
    for session, token_ids in (("a", opening), ("b", prompt(*opening, 1, 2)), ("c", opening[:70]), ("d", opening)):
        served(table, session, token_ids)
    assert table.family(0) == table.family(1) == (1, 79)
    assert table.family(2) == (2, 69)
    assert table.family(3) == (1, 79)
    served(table, "b", prompt(*opening[:50], 1, 2))
    assert table.family(1) == (-1, 0)


def test_short_openings_make_no_family():
    table = SlotTable(2, 64)
    served(table, "a", LONG)
    served(table, "b", LONG)
    assert table.family(0) == table.family(1) == (-1, 0)


def test_a_cleared_table_holds_nothing():
    table = SlotTable(1, 64)
    served(table, "a", LONG)
    table.clear()
    assert table.claim("a", LONG) == Claim(0, 0)
