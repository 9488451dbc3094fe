"""The journal's tables and how its file is opened.

Token ids and log-probabilities are numpy bytes (little-endian int32 and float32); messages, outcomes, rewards, metrics,
states, an episode's `left_out` and a verdict's `rules` are JSON. `usage` is [prompt, cached, completion] tokens by an
endpoint's count. What older formats lack stands in `_ADDED`. WAL lets a report read while the run writes. With
synchronous=NORMAL a transaction is in the kernel's hands when it returns, so kill -9 loses nothing; only a power cut
can take the last transactions, and even then the file stays consistent. It saves an fsync for every turn.
"""

import sqlite3
from pathlib import Path

SCHEMA_VERSION = 4

TABLES = """
CREATE TABLE run (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE episodes (
    id TEXT PRIMARY KEY, stage TEXT NOT NULL, purpose TEXT NOT NULL, iteration INTEGER NOT NULL, task_id TEXT NOT NULL,
    member INTEGER NOT NULL, opening BLOB NOT NULL, messages TEXT NOT NULL, stop_reason TEXT,
    patch TEXT NOT NULL DEFAULT '', patch_hash TEXT, rewards TEXT,
    left_out TEXT NOT NULL DEFAULT '[]');
CREATE INDEX episodes_by_stage ON episodes (stage, purpose, iteration);
CREATE TABLE turns (
    episode_id TEXT NOT NULL REFERENCES episodes (id), turn INTEGER NOT NULL, response TEXT NOT NULL, command TEXT,
    format_error TEXT, observation TEXT NOT NULL, exit_code INTEGER, start INTEGER NOT NULL, stop INTEGER NOT NULL,
    policy_version INTEGER NOT NULL, sample_s REAL NOT NULL, exec_s REAL NOT NULL, token_ids BLOB NOT NULL,
    logprobs BLOB NOT NULL, observation_ids BLOB NOT NULL, usage TEXT, PRIMARY KEY (episode_id, turn));
CREATE TABLE verdicts (
    task_id TEXT NOT NULL, patch_hash TEXT NOT NULL, kind TEXT NOT NULL, fail_to_pass TEXT NOT NULL,
    pass_to_pass TEXT NOT NULL, log TEXT NOT NULL, duration_s REAL NOT NULL, reason TEXT NOT NULL DEFAULT '',
    rules TEXT NOT NULL DEFAULT '[]', PRIMARY KEY (task_id, patch_hash));
CREATE TABLE updates (
    stage TEXT NOT NULL, iteration INTEGER NOT NULL, step INTEGER NOT NULL, metrics TEXT NOT NULL,
    PRIMARY KEY (stage, iteration, step));
CREATE TABLE evaluations (
    stage TEXT NOT NULL, iteration INTEGER NOT NULL, figures TEXT NOT NULL, PRIMARY KEY (stage, iteration));
CREATE TABLE infra_failures (
    id INTEGER PRIMARY KEY, cause TEXT NOT NULL, episode_id TEXT NOT NULL, detail TEXT NOT NULL,
    dropped INTEGER NOT NULL);
CREATE TABLE states (stage TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (stage, name));
"""


def connect(path: Path, read_only: bool) -> sqlite3.Connection:
    """An autocommitting connection; the journal's own lock makes it safe to share between threads."""
    uri = f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None, timeout=10)
    connection.row_factory = sqlite3.Row
    if not read_only:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def schema_version(connection: sqlite3.Connection) -> int:
    """0 for a new file."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


# For each format: its tables that lack a column, and what that column is.
_ADDED = {
    1: (("turns", "usage", "TEXT", "NULL"), ("verdicts", "reason", "TEXT NOT NULL DEFAULT ''", "''")),
    2: (("episodes", "left_out", "TEXT NOT NULL DEFAULT '[]'", "'[]'"),),
    3: (("verdicts", "rules", "TEXT NOT NULL DEFAULT '[]'", "'[]'"),),
}


def upgrade(connection: sqlite3.Connection, version: int, read_only: bool) -> None:
    """Give a journal of an older format the columns that it lacks; one that is only read, for this connection alone."""
    added = [column for older, columns in _ADDED.items() if older >= version for column in columns]
    if read_only:
        for table in {table for table, *_ in added}:
            lacking = ", ".join(f"{default} AS {name}" for other, name, _, default in added if other == table)
            connection.execute(f"CREATE TEMP VIEW {table} AS SELECT rowid, *, {lacking} FROM main.{table}")
        return
    columns = "".join(f"ALTER TABLE {table} ADD {name} {kind};" for table, name, kind, _ in added)
    connection.executescript(f"BEGIN IMMEDIATE; {columns} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")


def create_tables(connection: sqlite3.Connection) -> None:
    """Make the tables of a new file, all or none."""
    connection.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
