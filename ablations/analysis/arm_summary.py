"""The arms of a block: means with intervals, paired differences to the reference, costs, and how they ended."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean, median
from typing import Any

from ablations.analysis import curves, image_differences
from ablations.analysis.image_differences import Predictions
from ablations.analysis.outcomes import outcomes, resolution
from ablations.analysis.study import BlockRecords, Record, Study
from ablations.analysis.words import ON, is_switch, p_said
from ablations.layout import STATES, tuning_block
from ablations.plan import Objective
from ablations.statistics import PairedDifference, best_arm, compare_with, loudest, paired_differences, t_interval

COSTS = {
    "params": "params",
    "macs": "macs",
    "mixer_macs": "mixer_macs",
    "images_per_second": "train/images_per_second",
    "seconds": "train/seconds",
    "memory_mb": "train/memory_mb",
}
"""Cost in the summary -> key of metrics.json; the median over seeds is what is told."""


def rows(
    block: BlockRecords, objective: Objective, level: float, predictions: Predictions | None = None
) -> list[dict[str, Any]]:
    """One row per arm, the best first; then those of which a run diverged, and last those without a score."""
    arms, reference = block.arms, block.reference
    judged = outcomes(block, objective)
    differences = _differences(block, objective, level)
    rows = []
    for name, trials in arms.items():
        values = scores(trials, objective.metric)
        states = Counter(trial.state for trial in trials)
        row = {
            "arm": name,
            "title": title(block, trials),
            "levels": block.cell(trials[0]),
            "reference": name == reference,
            "values": {str(seed): value for seed, value in values.items()},
            "outcomes": {str(seed): value for seed, value in judged[name].items()},
            **_mean(list(values.values()), level),
            **_difference(differences.get(name), level),
            **_for_other_images(differences.get(name), name, predictions or Predictions(), level),
            **{state: states[state] for state in STATES},
            **costs(trials),
            "tuning": tuning(trials),
            "learning_rates": sorted({rate for t in trials if math.isfinite(rate := t.score("learning_rate"))}),
            "metrics": _means(trials),
        }
        rows.append(row)
    return sorted(rows, key=partial(_rank, objective.sign))


def _rank(sign: int, row: Mapping[str, Any]) -> tuple[bool, bool, float]:
    scores = list(row["outcomes"].values())
    return row["mean"] is None, row["diverged"] > 0, -sign * fmean(scores) if scores else math.inf


def best(
    rows: Sequence[Mapping[str, Any]], sign: int, level: float, step: float, predictions: Predictions
) -> dict[str, Any] | None:
    """The best of rows as `rows` orders them; None if no arm has scores without a run that diverged."""
    ranked = {row["arm"]: _by_seed(row) for row in rows if row["n"] and not row["diverged"]}
    if not ranked:
        return None
    chosen = best_arm(ranked, sign, level, step)
    error = predictions.error_of_mean(list(ranked[chosen.arm]), chosen.arm)
    return {**vars(chosen), **image_differences.ends(chosen.mean, chosen.low, chosen.high, error, level)}


def scores(trials: Sequence[Record], metric: str) -> dict[int, float]:
    """Seed -> score of the trials that have one."""
    pairs = [(trial.seed, trial.score(metric)) for trial in trials]
    return {seed: value for seed, value in pairs if math.isfinite(value)}


def costs(trials: Sequence[Record]) -> dict[str, float | None]:
    """Median of each cost over the trials that ended well."""
    return {name: _median([trial.score(key) for trial in trials]) for name, key in COSTS.items()}


def tuning(trials: Sequence[Record]) -> str:
    """Whether the learning rate was `tuned` on validation, `untuned`, `mixed`, or `unknown` where nothing says it."""
    labels = {label for trial in trials if (label := _tuned(trial)) is not None}
    if len(labels) != 1:
        return "mixed" if labels else "unknown"
    return "tuned" if labels.pop() else "untuned"


def _tuned(trial: Record) -> bool | None:
    """The study's own word, or else the run's."""
    own = trial.metrics.get("tuned")
    if isinstance(own, str):
        return own.lower() == "true"
    return None if trial.provenance is None else bool(trial.provenance.get("learning_rate_tuned"))


def title(block: BlockRecords, trials: Sequence[Record]) -> str:
    """The arm as tables name it: its levels, factors that are switches by name where they are on."""
    cell = block.cell(trials[0])
    if cell is None:
        return trials[0].arm
    if len(cell) == 1:
        return next(iter(cell.values()))
    switches = [factor.name for factor in block.plan.factors if is_switch(factor.labels)]
    on = [name for name in switches if cell[name].lower() in ON]
    others = [f"{name}={level}" for name, level in cell.items() if name not in switches]
    if not switches:
        return " ".join(others)
    return " ".join(["+".join(on) or "[]", *others])


def tuning_runs(study: Study, block: BlockRecords, metric: str) -> list[dict[str, Any]]:
    """What tuning tried for each arm, and its score on validation: trials of the block `tuning of NAME`."""
    return [
        {
            "arm": trial.arm,
            "seed": trial.seed,
            "level": trial.metrics.get("learning_rate"),
            "state": trial.state,
            "score": trial.score(metric),
        }
        for trial in study.records
        if trial.block == tuning_block(block.plan.name) and trial.state != "skipped"
    ]


def against_best(
    rows: Sequence[Mapping[str, Any]], level: float, step: float, predictions: Predictions | None = None
) -> list[dict[str, Any]]:
    """Of rows as `rows` orders them, every other arm less the first, and whether it is told apart."""
    scored = [row for row in rows if row["n"]]
    if len(scored) < 2:
        return []
    best, titles = scored[0]["arm"], {row["arm"]: row["title"] for row in scored}
    values = {row["arm"]: _by_seed(row) for row in scored}
    pairs = len(scored) * (len(scored) - 1) // 2
    compared = []
    for difference in compare_with(values, best, level, step):
        interval, arm = difference.interval, difference.arm
        shared = sorted(values[arm].keys() & values[best].keys())
        error = (predictions or Predictions()).error_of_mean(shared, arm, best)
        row = {
            "arm": arm,
            "title": titles[arm],
            "best": best,
            "difference": interval.mean,
            "low": interval.low,
            "high": interval.high,
            "p": difference.p,
            "told_apart": difference.p < 1 - level,
        }
        compared.append(row | image_differences.ends(interval.mean, interval.low, interval.high, error, level, pairs))
    return compared


def uneven(rows: Sequence[Mapping[str, Any]], level: float) -> list[str]:
    """An arm whose scores vary more over seeds than those of others, for which a pooled residual is too short."""
    noisiest = loudest({row["arm"]: _by_seed(row) for row in rows if row["n"]})
    if noisiest is None or noisiest.p >= 1 - level:
        return []
    name = next(row["title"] for row in rows if row["arm"] == noisiest.arm)
    return [
        f"the scores of {name} vary more over seeds than those of other arms ({noisiest.ratio:.2g} times their "
        f"standard deviation; Cochran's test, {p_said(noisiest.p)}): intervals of arms allow for it, the analysis of "
        "variance does not"
    ]


def _by_seed(row: Mapping[str, Any]) -> dict[int, float]:
    return {int(seed): value for seed, value in row["outcomes"].items()}


def learning_curves(block: BlockRecords, metric: str, level: float) -> list[dict[str, Any]]:
    """Per arm, the metric step by step with its band over seeds; arms without a log are left out."""
    rows = []
    for name, trials in block.arms.items():
        logged = [curves.read(trial.run_dir, metric) for trial in trials if trial.run_dir is not None]
        points = curves.band([curve for curve in logged if curve], level)
        if points:
            rows.append({"arm": name, "title": title(block, trials), "metric": metric, "points": points})
    return rows


def sheets(block: BlockRecords) -> list[dict[str, Any]]:
    """Of each arm that draws samples, the sheet of its first seed that has one."""
    rows = []
    for name, trials in block.arms.items():
        for trial in sorted(trials, key=lambda trial: trial.seed):
            if trial.run_dir is not None and (trial.run_dir / "samples" / "sheet.png").is_file():
                path = str(trial.run_dir / "samples" / "sheet.png")
                rows.append({"arm": name, "title": title(block, trials), "seed": trial.seed, "path": path})
                break
    return rows


def _differences(block: BlockRecords, objective: Objective, level: float) -> dict[str, PairedDifference]:
    values = {name: scores(trials, objective.metric) for name, trials in block.arms.items()}
    reference = block.reference
    if reference is None or len(values) < 2 or not values[reference]:
        return {}
    # An arm that has not ended yet is no hypothesis yet: it would only make Holm's adjustment harder.
    compared = {name: by_seed for name, by_seed in values.items() if name == reference or by_seed}
    if len(compared) < 2:
        return {}
    step = resolution(block, objective)
    return {difference.arm: difference for difference in paired_differences(compared, reference, level, step)}


def _mean(values: list[float], level: float) -> dict[str, Any]:
    if not values:
        return {"n": 0, "mean": None, "half": None, "low": None, "high": None}
    interval = t_interval(values, level)
    return {
        "n": interval.n,
        "mean": interval.mean,
        "half": interval.half,
        "low": interval.low,
        "high": interval.high,
    }


def _difference(paired: PairedDifference | None, level: float) -> dict[str, Any]:
    names = ("difference", "difference_half", "difference_low", "difference_high", "p", "p_holm", "g_z")
    if paired is None:
        return {**dict.fromkeys(names), "pairs": 0, "unmatched": []}
    interval = paired.interval
    values = (interval.mean, interval.half, interval.low, interval.high, paired.p, paired.p_holm, paired.g_z)
    return {
        **dict(zip(names, values, strict=True)),
        "pairs": interval.n,
        "unmatched": list(paired.unmatched),
    }


def _for_other_images(
    paired: PairedDifference | None, arm: str, predictions: Predictions, level: float
) -> dict[str, float | None]:
    """The interval of the difference to the reference, made to hold for other test images too."""
    ends: dict[str, float | None] = {"low_images": None, "high_images": None}
    if paired is not None:
        interval, error = paired.interval, predictions.error_of_mean(paired.seeds, arm, paired.reference)
        ends = image_differences.ends(interval.mean, interval.low, interval.high, error, level)
    return {f"difference_{name}": end for name, end in ends.items()}


def _means(trials: Sequence[Record]) -> dict[str, float]:
    """Mean of every number in metrics.json over the trials that ended well."""
    keys = dict.fromkeys(key for trial in trials for key, value in trial.metrics.items() if isinstance(value, float))
    means = {key: [value for trial in trials if math.isfinite(value := trial.score(key))] for key in keys}
    return {key: fmean(values) for key, values in means.items() if values and key != "seed"}


def _median(values: Sequence[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return median(finite) if finite else None
