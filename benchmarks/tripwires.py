"""How often tripwires trip on honest work: gold patches of rows, and fixes in the history of repositories.

    python benchmarks/tripwires.py --repos clones/ --rows rows.parquet --history 300

For each row whose repository lies in `--repos` (a clone OWNER__NAME or OWNER+NAME/repo, bare or not) the gold patch is
read against its base commit, without a gold patch as a reference: what is measured is how an honest fix looks. With
`--history N` the newest N commits of each clone that change both tests and other Python files are read so, too, less
what they change in tests. Prints a table by rule, and what tripped.
"""

import argparse
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from turnwise.rewards.protect import hidden_files, touched_files
from turnwise.rewards.tripwires import Files, chosen_rules, tripped
from turnwise.tasks.baseline import is_test_path
from turnwise.tasks.rows import scan_tasks
from turnwise.types import Task


@dataclass(frozen=True)
class Change:
    """An honest change: its name, and its files before and after."""

    name: str
    before: Files
    after: Files
    hidden: frozenset[str]


def main() -> None:
    """Read the changes and print what tripped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repos", type=Path, required=True)
    parser.add_argument("--rows", type=Path, nargs="*", default=[])
    parser.add_argument("--history", type=int, default=0)
    options = parser.parse_args()
    clones = dict(_clones(options.repos))
    changes = [change for path in options.rows for change in _of_rows(path, clones)]
    for name, clone in clones.items():
        changes += list(_of_history(name, clone, options.history))
    _report(changes)


def _report(changes: list[Change]) -> None:
    rules, console = chosen_rules(None), Console()
    trips: Counter[str] = Counter()
    tripping = 0
    for change in track(changes, "reading", console=console):
        found = tripped(change.before, change.after, rules, change.hidden)
        trips.update(found.keys())
        tripping += bool(found)
        for rule, what in found.items():
            console.print(f"{change.name}  [bold]{rule}[/]  {what}", highlight=False)
    table = Table("tripwire", "changes that trip it", "of all, %", title=f"{len(changes)} honest changes")
    for rule in rules:
        table.add_row(rule.name, str(trips[rule.name]), f"{100 * trips[rule.name] / max(1, len(changes)):.2f}")
    table.add_row("any", str(tripping), f"{100 * tripping / max(1, len(changes)):.2f}")
    console.print(table)


def _clones(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.iterdir()):
        clone = path / "repo" if (path / "repo").is_dir() else path
        if (clone / "HEAD").exists() or (clone / ".git").exists():
            yield path.name.replace("__", "/").replace("+", "/"), clone


def _git(clone: Path, *words: str) -> bytes:
    command = ["git", "-C", str(clone), *words]
    return subprocess.run(command, capture_output=True, check=True).stdout


def _show(clone: Path, commit: str, path: str) -> bytes | None:
    done = subprocess.run(["git", "-C", str(clone), "show", f"{commit}:{path}"], capture_output=True, check=False)
    return None if done.returncode else done.stdout


def _of_rows(path: Path, clones: Mapping[str, Path]) -> Iterator[Change]:
    for task in scan_tasks(path).tasks:
        if task.repo in clones:
            change = _gold(task, clones[task.repo])
            if change is not None:
                yield change


def _gold(task: Task, clone: Path) -> Change | None:
    """The gold patch of a row; None where the clone lacks its base commit."""
    paths = touched_files(task.patch)
    try:
        _git(clone, "cat-file", "-e", f"{task.base_commit}^{{commit}}")
    except subprocess.CalledProcessError:
        return None
    before = {path: _show(clone, task.base_commit, path) for path in paths}
    with tempfile.TemporaryDirectory() as folder:
        for path, content in before.items():
            if content is not None:
                Path(folder, path).parent.mkdir(parents=True, exist_ok=True)
                Path(folder, path).write_bytes(content)
        subprocess.run(["git", "apply", "-"], cwd=folder, input=task.patch.encode(), capture_output=True, check=True)
        after = {path: Path(folder, path).read_bytes() if Path(folder, path).exists() else None for path in paths}
    return Change(task.instance_id, before, after, frozenset(hidden_files(task)))


def _of_history(name: str, clone: Path, count: int) -> Iterator[Change]:
    log = _git(clone, "log", "--no-merges", "--format=%H", f"-n{20 * count}", "HEAD").decode().split() if count else []
    found = 0
    for commit in log:
        if found == count:
            return
        listed = _git(clone, "diff-tree", "--no-commit-id", "--name-only", "-r", "--no-renames", "-z", commit)
        paths = [path for path in listed.decode(errors="replace").split("\0") if path]
        tests = [path for path in paths if is_test_path(path)]
        source = [path for path in paths if path.endswith(".py") and not is_test_path(path)]
        if not tests or not 0 < len(source) <= 10:
            continue
        found += 1
        before = {path: _show(clone, f"{commit}^", path) for path in source}
        after = {path: _show(clone, commit, path) for path in source}
        yield Change(f"{name}@{commit[:10]}", before, after, frozenset(tests))


if __name__ == "__main__":
    main()
