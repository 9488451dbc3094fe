"""Scores policies: repeated runs, Pass@1 with its standard error, unbiased Pass@k; predictions; comparisons."""

from turnwise.evaluation.compare import (
    PairedDifference,
    Score,
    check_same_tasks,
    paired_difference,
    read_score,
    total_usage,
    uncounted_turns,
)
from turnwise.evaluation.estimators import pass_at_k
from turnwise.evaluation.evaluate import evaluate, evaluation_requests, outcome_of_summary
from turnwise.evaluation.outputs import Graded, failed_for_good, write_grades, write_outputs
from turnwise.evaluation.predictions import Matched, Prediction, match, read_predictions
from turnwise.evaluation.summary import Outcome, StageResult, summarize
from turnwise.evaluation.verdicts import VerdictCounts, count_verdicts, unusual_verdicts

__all__ = [
    "Graded",
    "Matched",
    "Outcome",
    "PairedDifference",
    "Prediction",
    "Score",
    "StageResult",
    "VerdictCounts",
    "check_same_tasks",
    "count_verdicts",
    "evaluate",
    "evaluation_requests",
    "failed_for_good",
    "match",
    "outcome_of_summary",
    "paired_difference",
    "pass_at_k",
    "read_predictions",
    "read_score",
    "summarize",
    "total_usage",
    "uncounted_turns",
    "unusual_verdicts",
    "write_grades",
    "write_outputs",
]
