"""Scores a policy on held-out tasks: repeated runs, Pass@1 with its standard error, unbiased Pass@k."""

from turnwise.evaluation.estimators import pass_at_k
from turnwise.evaluation.evaluate import evaluate, evaluation_requests
from turnwise.evaluation.summary import Outcome, StageResult, summarize

__all__ = ["Outcome", "StageResult", "evaluate", "evaluation_requests", "pass_at_k", "summarize"]
