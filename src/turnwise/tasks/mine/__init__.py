"""Tasks out of a repository's own past: its commits that mended something and brought the tests for it."""

from turnwise.tasks.mine.candidates import Candidate, Prospects, Rules, find_candidates
from turnwise.tasks.mine.commits import open_history
from turnwise.tasks.mine.measure import Measured, settle_tests
from turnwise.tasks.mine.mined import MinedFile
from turnwise.tasks.mine.names import repository_name
from turnwise.tasks.mine.story import told_problem, told_symptom

__all__ = [
    "Candidate",
    "Measured",
    "MinedFile",
    "Prospects",
    "Rules",
    "find_candidates",
    "open_history",
    "repository_name",
    "settle_tests",
    "told_problem",
    "told_symptom",
]
