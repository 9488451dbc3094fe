"""What people expect in a folder after an evaluation: SWE-bench's predictions, reports and run summary.

One run of the task set fills one folder:

    preds.json                      {id: {model_name_or_path, instance_id, model_patch}}
    <model>.<run id>.json           the run's summary, in the schema of swebench's `make_run_report` (schema_version 2)
    logs/<id>/report.json           as swebench's `get_eval_report` gives it
    logs/<id>/test_output.txt       what the hidden tests printed (its last 16,000 characters)
    logs/<id>/patch.diff            the patch that was graded
    trajs/<id>.traj                 the episode, as SWE-agent writes it
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnwise.evaluation.evaluate import PURPOSE
from turnwise.files import write_whole
from turnwise.store import InfraFailure, Journal, StoredEpisode, export_predictions, export_traj
from turnwise.types import Verdict, VerdictKind

SCHEMA_VERSION = 2
_NAME_BYTES = 100  # of a model's name; file systems take 255 for all of a file's
# As in swebench, where a patch that does not apply and tests that do not end leave no report behind.
_ERRORS = (
    VerdictKind.INFRASTRUCTURE_FAILURE,
    VerdictKind.PATCH_DOES_NOT_APPLY,
    VerdictKind.TESTS_TIMED_OUT,
)
_NOT_APPLIED = (VerdictKind.EMPTY_PATCH, VerdictKind.PATCH_DOES_NOT_APPLY, VerdictKind.INFRASTRUCTURE_FAILURE)


@dataclass(frozen=True)
class Graded:
    """One patch with what became of it. `failure` is the infrastructure's or the row's, in one word, where it ended the
    attempt, and `detail` what was said of it.

    >>> Graded("psf__requests-2317", "", Verdict(VerdictKind.EMPTY_PATCH)).failure is None
    True
    """

    instance_id: str
    patch: str
    verdict: Verdict | None = None
    failure: str | None = None
    detail: str = ""

    @staticmethod
    def of(episode: StoredEpisode, failures: Mapping[str, InfraFailure]) -> "Graded":
        """From the journal's record of an ended episode; `failures` are those of `failed_for_good`."""
        ended = episode.stop_reason
        failure = str(ended) if ended is not None and ended.is_infrastructure else None
        detail = failures[str(episode.key)].detail if str(episode.key) in failures else ""
        return Graded(episode.key.task_id, episode.patch, episode.verdict, failure, detail)

    @property
    def is_error(self) -> bool:
        """True where swebench would have no report to read: see `_ERRORS`."""
        return self.failure is not None or self.verdict is None or self.verdict.kind in _ERRORS


def failed_for_good(journal: Journal) -> dict[str, InfraFailure]:
    """By episode id, the failure that each evaluation episode was given up for that still stands as given up."""
    last = {failure.episode_id: failure for failure in journal.failures() if failure.dropped}
    ended = [episode for episode in journal.episodes(purpose=PURPOSE) if episode.stop_reason.is_infrastructure]
    return {key: last[key] for key in (str(episode.key) for episode in ended) if key in last}


def write_outputs(journal: Journal, folder: Path, *, model_name: str, run_id: str) -> list[Path]:
    """Write the files of the journal's last evaluation; returns the summaries' paths, one a run.

    An evaluation of one run goes into `folder` itself, one of several into `folder/runs/0`, `folder/runs/1`, …
    Nothing is written while there is no evaluation.
    """
    keys = journal.keys(purpose=PURPOSE)
    if not keys:
        return []
    last = keys[-1]
    keys = [key for key in keys if (key.stage, key.iteration) == (last.stage, last.iteration)]
    task_ids, runs = sorted({key.task_id for key in keys}), sorted({key.member for key in keys})
    summaries, failures = [], failed_for_good(journal)
    for run in runs:
        place = folder if len(runs) == 1 else folder / "runs" / str(run)
        export_predictions(
            journal, place / "preds.json", model_name=model_name, stage=last.stage, iteration=last.iteration, member=run
        )
        graded = []
        for key in (key for key in keys if key.member == run):
            episode = journal.episode(key)
            if episode is not None and episode.stop_reason is not None:
                graded.append(Graded.of(episode, failures))
                export_traj(journal, key, place / "trajs")
        summaries.append(write_grades(place, graded, task_ids, model_name=model_name, run_id=run_id))
    return summaries


def write_grades(
    folder: Path, graded: Sequence[Graded], task_ids: Sequence[str], *, model_name: str, run_id: str
) -> Path:
    """Write the report, test output and patch of every instance, and the run's summary, whose path is returned."""
    for each in graded:
        place = folder / "logs" / each.instance_id
        _write_json(place / "report.json", instance_report(each))
        _write(place / "test_output.txt", each.verdict.log if each.verdict else "")
        _write(place / "patch.diff", each.patch)
    path = folder / f"{_file_name(model_name)}.{run_id}.json"
    _write_json(path, run_summary(graded, task_ids))
    return path


def instance_report(graded: Graded) -> dict[str, Any]:
    """The content of `report.json`: swebench's keys, with `tests_status` where the tests were run."""
    verdict, has_patch = graded.verdict, bool(graded.patch.strip())
    ran = verdict is not None and graded.failure is None and verdict.kind not in _NOT_APPLIED
    report: dict[str, Any] = {
        "patch_is_None": not has_patch,
        "patch_exists": has_patch,
        "patch_successfully_applied": ran,
        "resolved": verdict is not None and verdict.resolved,
        "infra_failure": graded.failure is not None,
    }
    if graded.failure is not None:
        report["infra_failure_reason"] = graded.failure
        report["infra_failure_detail"] = graded.detail
    if ran and verdict is not None:
        report["tests_status"] = {
            "FAIL_TO_PASS": _sorted_out(verdict.fail_to_pass, ("passed",)),
            "PASS_TO_PASS": _sorted_out(verdict.pass_to_pass, ("passed", "skipped")),
            "FAIL_TO_FAIL": _sorted_out({}, ()),
            "PASS_TO_FAIL": _sorted_out({}, ()),
        }
    return {graded.instance_id: report}


def run_summary(graded: Sequence[Graded], task_ids: Sequence[str]) -> dict[str, Any]:
    """The run in swebench's schema, version 2: every attempted instance is completed, empty or an error.

    What the infrastructure failed is an error and an `infra_failure`, never unresolved; so are, without being the
    latter, patches that do not apply and tests that do not end. `task_ids` is the whole task set; what was not
    attempted is incomplete.
    """
    empty = {each.instance_id for each in graded if each.failure is None and not each.patch.strip()}
    errors = {each.instance_id for each in graded if each.is_error} - empty
    attempted = {each.instance_id for each in graded}
    resolved = {each.instance_id for each in graded if each.verdict is not None and each.verdict.resolved} - errors
    completed = attempted - empty - errors
    infra = {
        each.instance_id: ": ".join(filter(None, (each.failure, each.detail)))
        for each in graded
        if each.failure is not None
    }
    words = {each.instance_id: str(each.verdict.kind) for each in graded if each.verdict is not None}
    reasons = {each: infra.get(each) or words.get(each, "not graded") for each in sorted(errors)}
    named = {
        "completed": completed,
        "incomplete": set(task_ids) - attempted,
        "empty_patch": empty,
        "submitted": attempted,
        "resolved": resolved,
        "unresolved": completed - resolved,
        "infra_failure": set(infra),
        "ambiguous_failure": {each for each, reason in reasons.items() if reason == VerdictKind.TESTS_TIMED_OUT},
        "error": errors,
    }
    counted = ("submitted", "completed", "resolved", "unresolved", "infra_failure", "ambiguous_failure")
    return {
        "total_instances": len(task_ids),
        **{f"{name}_instances": len(named[name]) for name in (*counted, "empty_patch", "error")},
        **{f"{name}_ids": sorted(ids) for name, ids in named.items() if name != "error"},
        "failure_reasons": reasons,
        "error_ids": sorted(errors),
        "schema_version": SCHEMA_VERSION,
    }


def _file_name(model_name: str) -> str:
    """A model's name, which anyone may have given, as swebench puts it into a file's name, as far as that can be."""
    plain = re.sub(r"[\x00-\x1f\x7f]", "-", model_name.replace("/", "__"))
    return plain.encode("utf-8", "ignore")[:_NAME_BYTES].decode("utf-8", "ignore")


def _sorted_out(outcomes: Mapping[str, str], good: Sequence[str]) -> dict[str, list[str]]:
    return {
        "success": [test_id for test_id, outcome in outcomes.items() if outcome in good],
        "failure": [test_id for test_id, outcome in outcomes.items() if outcome not in good],
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    _write(path, json.dumps(content, indent=4) + "\n")


def _write(path: Path, text: str) -> None:
    with write_whole(path) as out:
        out.write(text.encode("utf-8", "replace"))
