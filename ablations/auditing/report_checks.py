"""The summary and the report, derived again from a table that is built from the trials' own files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from io import StringIO
from typing import Any

from ablations import report
from ablations.analysis import study as studies
from ablations.analysis.axes import looks
from ablations.analysis.study import Study
from ablations.analysis.summary import derive
from ablations.auditing.checks import CLOSE, Check
from ablations.auditing.evidence import AuditedTrial, Evidence
from ablations.auditing.trial_checks import OF_THE_STUDY
from ablations.layout import COMPLETE, DIVERGED, ENDED, FACTOR, LOOKS, PARAMETER, PLANNED, run_directory
from ablations.registration import analysis_plan
from tasks.system import results

SUMMARY = "summary.json"
_ABSENT = "there is no {}: python -m ablations.report DIR writes it"


def looked(evidence: Evidence) -> list[Check]:
    """Of a study that adds seeds, each look made again; whether its trials are those that follow, `planned` checks."""
    until = evidence.study.plan.until
    if until is None:
        return []
    check, study = Check("looks.json from the trials' files"), fresh(evidence)
    for place, look in enumerate(study.looks):
        where = f"look {place + 1}"
        check.compare(LOOKS, f"{where}, seeds", look.seeds, until.after(study.looks[:place]))
        if look.code == analysis_plan.code():
            check.compare_trees(LOOKS, look.written, looks.look(study, look.seeds).written, CLOSE, where)
        else:
            check.skip(f"other code ({look.code}) looked: check with that revision")
    return [check]


def derived(evidence: Evidence) -> tuple[Check, Check]:
    """Of summary.json, number by number; and of the page, its tables and its figures, piece by piece."""
    summary, pages = Check("summary.json from the trials' files"), Check("report.html, tables, figures from the same")
    text = results.read(evidence.path / SUMMARY)
    try:
        recorded = json.loads(text) if text is not None else None
    except ValueError as error:
        summary.compare(SUMMARY, "content", f"damaged: {error}", "JSON")
        recorded = {}
    if recorded is None:
        summary.skip(_ABSENT.format(SUMMARY))
        pages.skip(_ABSENT.format(report.REPORT))
        return summary, pages
    study = fresh(evidence)
    again = derive(study)
    reason = _not_comparable(recorded, again)
    if reason:
        summary.skip(reason)
        pages.skip(reason)
        return summary, pages
    summary.compare_trees(SUMMARY, recorded, again, CLOSE)
    for name, page in report.pages(study, again).items():
        written = results.read(evidence.path / name)
        if written is None:
            pages.skip(_ABSENT.format(name))
        else:
            pages.compare_texts(name, written, page, CLOSE)
    return summary, pages


def _not_comparable(recorded: Any, again: Any) -> str | None:
    """Why a summary cannot be compared with today's; None where it can."""
    code = recorded.get("code")
    if code != again["code"]:
        which = "an older version" if code is None else f"other code ({code}, and here is {again['code']})"
        return f"{which} wrote it; check with that revision, or build the report again"
    running = again["progress"]["ended"] < again["progress"]["planned"]
    states = ([trial["state"] for trial in of.get("trials", ())] for of in (recorded, again))
    if running and [*next(states)] != [*next(states)]:
        return "the study has gone on since the report was written: build it again"
    return None


def fresh(evidence: Evidence) -> Study:
    """The study with a table that is built from the plan and the trials' files; what these lack is from the storage."""
    rows = [_row(evidence, trial) for trial in evidence.trials]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    text = StringIO()
    table = csv.DictWriter(text, keys, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return replace(evidence.study, records=studies.records(evidence.path, text.getvalue()))


def _row(evidence: Evidence, trial: AuditedTrial) -> dict[str, Any]:
    stored = evidence.stored.rows.get(trial.number, trial.row) if evidence.stored else trial.row
    if trial.state not in ENDED or trial.metrics is None or not trial.ended:
        source = stored if stored["state"] == trial.state else trial.row
        return {**trial.row, **source}
    levels = {key: text for key, text in trial.row.items() if key.startswith(PARAMETER)}
    row = {key: trial.row.get(key) for key in (*PLANNED, "tuned")} | levels
    row |= {key: stored.get(key) for key in OF_THE_STUDY if key in stored}
    row |= {"state": _state(trial), "run_dir": run_directory(trial.number)}
    if trial.planned is not None:
        row |= {key: getattr(trial.planned, key) for key in ("number", "block", "arm", "seed")}
        row |= {f"{FACTOR}{name}": level for name, level in trial.planned.factors.items()}
    else:
        row |= {key: text for key, text in trial.row.items() if key.startswith(FACTOR)}
    if trial.config is not None:
        row["learning_rate"] = trial.config.get("optimizer", {}).get("lr")
    derived = {**trial.metrics, **row}
    return {key: derived[key] for key in trial.row if key in derived} | derived  # in the order of the table


def _state(trial: AuditedTrial) -> str:
    """By the run's own status; whether the study pruned a run that ended well, only the study knows."""
    if trial.metrics is not None and trial.metrics.get("status") == DIVERGED:
        return DIVERGED
    return COMPLETE if trial.state == DIVERGED else trial.state
