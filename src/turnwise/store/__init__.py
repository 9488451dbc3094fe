"""Floor 1: the run's journal, one SQLite file written turn by turn, and its exports."""

from turnwise.store.export import (
    count_incomplete,
    export_episodes,
    export_jsonl,
    export_parquet,
    export_predictions,
    export_traj,
)
from turnwise.store.journal import Journal
from turnwise.store.rows import EpisodeKey, EpisodeSummary, Evaluation, InfraFailure, StoredEpisode, StoredTurn, Update

__all__ = [
    "EpisodeKey",
    "EpisodeSummary",
    "Evaluation",
    "InfraFailure",
    "Journal",
    "StoredEpisode",
    "StoredTurn",
    "Update",
    "count_incomplete",
    "export_episodes",
    "export_jsonl",
    "export_parquet",
    "export_predictions",
    "export_traj",
]
