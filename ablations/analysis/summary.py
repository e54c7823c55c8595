"""What a study found: from its directory to `summary.json`, which holds all that the report shows."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ablations.analysis import answer, arm_summary, factorial_summary, fronts, image_differences, origins, search
from ablations.analysis.axes import budgets, datasets, looks
from ablations.analysis.outcomes import resolution
from ablations.analysis.published import ranking
from ablations.analysis.study import BlockRecords, Record, Study
from ablations.analysis.words import plural
from ablations.layout import COMPLETE, ENDED, LEVEL, STATES, tuning_block
from ablations.plan import FactorialBlock, Objective
from ablations.registration import analysis_plan, standing
from tasks.system.atomic_files import asides, write_text

MATCHED = 0.02
"""Budgets within this share of each other count as matched."""


def analyse(study: Study) -> dict[str, Any]:
    """`derive`, written into the study's directory as `summary.json`.

    Raises:
        InputError: the table has a level that the plan lacks.
    """
    summary = derive(study)
    write_text(study.path / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
    return summary


def derive(study: Study) -> dict[str, Any]:
    """Analyse the trials that have ended, without changing anything in the study's directory.

    Numbers that are not finite become null. The result is the same for the same directory.

    Returns:
        name, question, kind, level, objectives; `answer` (one sentence); `progress` (trials by state); `notes` (what a
        reader has to know first); `blocks` (see `_block`) of a factorial study, and `published` (see
        `ablations.analysis.published.ranking`); `search` of the other kinds; `trials`; `provenance`; `registration`
        (see `ablations.registration.standing`); `code` that analysed.

    Raises:
        InputError: the table has a level that the plan lacks.
    """
    states = Counter(trial.state for trial in study.records)
    summary: dict[str, Any] = {
        "name": study.plan.name,
        "question": study.plan.question,
        "kind": study.plan.kind,
        "level": LEVEL,
        "objectives": [vars(objective) for objective in study.objectives],
        "progress": {
            "planned": len(study.records),
            "ended": sum(states[state] for state in ENDED),
            **{state: states[state] for state in STATES},
            "seconds": sum(trial.seconds or 0.0 for trial in study.records),
        },
        "blocks": [_block(study, block) for block in study.blocks],
        "published": [],
        "search": None,
        "trials": [_trial(study.path, record) for record in study.records],
        "provenance": origins.facts(study),
        "registration": standing.facts(study.document, [trial.begun for trial in study.records if trial.begun]),
        "code": analysis_plan.code(),
        "plan": study.content,
        "looks": [look.written for look in study.looks],
    }
    summary["published"] = ranking.of_study(study, summary["blocks"], LEVEL)
    if study.plan.searches:
        everything = BlockRecords(FactorialBlock("", (), (), "full", None, (), {}, ()), study.records)
        summary["search"] = {
            **search.analyse(study, LEVEL),
            "history": search.history(study),
            "sheets": arm_summary.sheets(everything),
        }
    registered = standing.notes(summary["registration"])
    summary["notes"] = [*registered, *_ended_badly(study), *origins.notes(study), *_study_notes(summary)]
    # Read by the answer as they will be read from the file.
    summary = finite(summary)
    summary["answer"] = answer.sentence(study, summary)
    loaded: dict[str, Any] = json.loads(json.dumps(summary, allow_nan=False, default=str))
    return loaded


def finite(tree: Any) -> Any:
    """The same containers with null in place of every number that is not finite."""
    if isinstance(tree, float):
        return tree if math.isfinite(tree) else None
    if isinstance(tree, Mapping):
        return {str(key): finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite(value) for value in tree]
    return tree


def _trial(path: Path, record: Record) -> dict[str, Any]:
    """A trial; its run directory by the path inside the study's own, None where there is none in there."""
    folder = record.run_dir
    inside = folder is not None and folder.is_relative_to(path) and ".." not in folder.relative_to(path).parts
    return {
        "number": record.number,
        "block": record.block,
        "arm": record.arm,
        "seed": record.seed,
        "state": record.state,
        "seconds": record.seconds,
        "run_dir": folder.relative_to(path).as_posix() if folder is not None and inside else None,
    }


def _block(study: Study, block: BlockRecords) -> dict[str, Any]:
    """A block: its factors and design, per objective the statistics, learning curves and sheets of samples."""
    results = [_objective(study, block, objective) for objective in study.objectives]
    logged, level = study.plan.select.metric, looks.level(study)
    tried = arm_summary.tuning_runs(study, block, logged)
    return {
        "name": block.plan.name,
        "factors": {factor.name: list(factor.labels) for factor in block.plan.factors},
        "design": block.plan.lay_out(study.plan.most_seeds).statement,
        "reference": block.reference,
        "negative_controls": list(block.plan.negative_controls),
        "seeds": sorted({trial.seed for trial in block.records}),
        "objectives": results,
        "curves": arm_summary.learning_curves(block, logged, level),
        "sheets": arm_summary.sheets(block),
        "tuning": tried,
        "tuning_metric": logged,
        "effort": budgets.effort(
            study.records, tuning_block(block.plan.name), logged, study.plan.select.direction, level
        ),
        "notes": [
            *_block_notes(block, results[0]["arms"]),
            *_chosen_once(study, tried),
            *_ends_of_the_range(results[0]["arms"], tried),
        ],
    }


def _objective(study: Study, block: BlockRecords, objective: Objective) -> dict[str, Any]:
    level = looks.level(study)
    predictions = image_differences.read(block, objective)
    result = factorial_summary.analyse(block, objective, level, predictions)
    of_images, left_out = image_differences.differences(block, predictions, LEVEL)
    rows = arm_summary.rows(block, objective, level, predictions)
    step = resolution(block, objective)
    curves = budgets.analyse(block, objective, level)
    best = arm_summary.best(rows, objective.sign, level, step, predictions)
    against_best = arm_summary.against_best(rows, level, step, predictions)
    return {
        "metric": objective.metric,
        "direction": objective.direction,
        **looks.held(study, {"arms": rows, **result}),
        "images": of_images,
        **looks.held(study, {"best": best, "against_best": against_best}),
        "fronts": fronts.of_block(block, objective, rows, level, step),
        "budgets": curves,
        "datasets": datasets.of_block(block, objective, level),
        "notes": [
            *result["notes"],
            *_diverged(rows),
            *_unpaired(rows),
            *budgets.notes(curves),
            *arm_summary.uneven(rows, level),
            *left_out,
            *image_differences.missing(block, objective, predictions),
        ],
    }


def _diverged(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    count = sum(row["diverged"] for row in rows)
    if not count:
        return []
    return [
        f"arms of which a run diverged, it counts as the worst score of the block, in effects and in differences to "
        f"the best arm ({plural(count, 'such run')}); these arms are not ranked"
    ]


def _unpaired(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    unmatched = [f"{row['title']} {', '.join(map(str, row['unmatched']))}" for row in rows if row["unmatched"]]
    return [f"seeds without a partner, left out of paired differences: {'; '.join(unmatched)}"] if unmatched else []


def _ended_badly(study: Study) -> list[str]:
    """Trials that gave no score, by arm."""
    notes = []
    if kept := asides(study.path):
        listed = ", ".join(map(str, kept[:8])) + (", …" if len(kept) > 8 else "")
        notes.append(f"{plural(len(kept), 'earlier run')} could not be continued, damaged or changed: {listed}")
    waiting = sum(trial.state not in ENDED for trial in study.records)
    if waiting:
        notes.append(f"the study is not finished: {waiting} of {len(study.records)} trials have not ended")
    for state, meaning in (("diverged", "diverged, which is a result"), ("failed", "failed, which is no result")):
        named = Counter(trial.arm for trial in study.records if trial.state == state)
        if named:
            listed = ", ".join(f"{arm} ({number})" for arm, number in named.most_common(8))
            more = f" and {len(named) - 8} more arms" if len(named) > 8 else ""
            why = dict.fromkeys(str(trial.metrics.get("reason", "")) for trial in study.records if trial.state == state)
            more += "".join(f"; {reason}" for reason in list(why)[:3] if reason)
            notes.append(f"{plural(sum(named.values()), 'trial')} {meaning}: {listed}{more}")
    return notes


def _study_notes(summary: Mapping[str, Any]) -> list[str]:
    """The blocks' own, those that all blocks share once."""
    own = {
        block["name"]: list(
            dict.fromkeys([*block["notes"], *(n for result in block["objectives"] for n in result["notes"])])
        )
        for block in summary["blocks"]
    }
    shared = [line for line in dict.fromkeys(chain(*own.values())) if all(line in lines for lines in own.values())]
    return [*shared, *(f"block {name}: {line}" for name, lines in own.items() for line in lines if line not in shared)]


def _block_notes(block: BlockRecords, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = []
    rates = Counter(row["tuning"] for row in rows if row["tuning"] != "unknown")
    if rates["untuned"] == len(rows) and rows:
        notes.append("untuned: every arm ran at the learning rate it was given, none at one of its own")
    elif rates["untuned"] or rates["mixed"]:
        notes.append(f"learning rates are tuned in {rates['tuned']} of {len(rows)} arms only: not a fair comparison")
    spans = {name: _span([row[name] for row in rows]) for name in ("params", "macs")}
    budgets = {record.metrics.get("match/budget") for record in block.records if record.state == COMPLETE}
    matched = len(budgets) == 1 and None not in budgets
    if not matched and all(span is not None and span > 1 + MATCHED for span in spans.values()):
        listed = " and ".join(f"{name} by a factor of {span:.3g}" for name, span in spans.items())
        notes.append(f"the arms' budgets are not matched: they differ in {listed}")
    return notes


def _ends_of_the_range(rows: Sequence[Mapping[str, Any]], tried: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether tuning chose the first or the last of the rates that it tried: a better one may lie beyond."""
    notes = []
    levels: dict[str, set[float]] = {}
    for run in tried:
        if run["level"]:
            levels.setdefault(run["arm"], set()).add(run["level"])
    tuned = [row for row in rows if len(levels.get(row["arm"], ())) > 1 and row["learning_rates"]]
    for word, end in (("highest", max), ("lowest", min)):
        there = [row for row in tuned if end(levels[row["arm"]]) in row["learning_rates"]]
        if there:
            number = f"{len(there)} of {plural(len(tuned), 'arm')}"
            notes.append(f"tuning chose the {word} rate that it tried in {number}: a better one may lie beyond")
    return notes


def _chosen_once(study: Study, tried: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a choice at one seed does to the claims of a study with several."""
    tuning = study.plan.tuning
    if not tried or tuning is None or not tuning.once or study.plan.seeds == 1:
        return []
    return [
        f"each arm's {tuning.key} was chosen once, at seed {tuning.seed}: the luck of that choice is part of every "
        "difference and of no interval. Where a wrong one costs two standard deviations of a run, equal arms are told "
        "apart in 48 % of the studies with three seeds and in 98 % with ten, where 5 % are promised "
        "(docs/results/statistics.md); without tuning.once the choice is made inside each seed"
    ]


def _span(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value]
    return max(known) / min(known) if known else None
