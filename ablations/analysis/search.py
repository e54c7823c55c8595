"""What a search found: the best trials, the front of several objectives, and which parameters mattered."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ablations.analysis.fronts import of_pair
from ablations.analysis.study import Record, Study
from ablations.plan import Objective
from ablations.statistics import t_interval
from ablations.tuning import Dimension

FEWEST = 10
"""Trials below which importances say nothing."""


def analyse(study: Study, level: float) -> dict[str, Any]:
    """Candidates (one per set of parameters, over its seeds), the best first; the front; importances."""
    objectives = study.objectives
    candidates = _candidates(study, level)
    on_front = front([[row["values"][objective.metric] for objective in objectives] for row in candidates], objectives)
    for row, member in zip(candidates, on_front, strict=True):
        row["front"] = member
    candidates.sort(key=lambda row: -objectives[0].sign * row["values"][objectives[0].metric])
    fronts = []
    for objective in objectives[1:]:
        pair = (objectives[0], objective)
        members = front([[row["values"][each.metric] for each in pair] for row in candidates], pair)
        fronts.append(of_pair(candidates, *pair, members))
    parameters = sorted({name for row in candidates for name in row["parameters"]})
    return {
        "parameters": parameters,
        "candidates": candidates,
        "fronts": fronts,
        "importances": {
            objective.metric: importances(
                [(row["parameters"], row["values"][objective.metric]) for row in candidates],
                objective,
                study.plan.space,
            )
            for objective in objectives
        },
    }


def front(values: Sequence[Sequence[float]], objectives: Sequence[Objective]) -> list[bool]:
    """Which of the points are on the front: no other is as good in everything and better in something."""
    costs = [[-objective.sign * value for objective, value in zip(objectives, point, strict=True)] for point in values]

    def beaten(point: list[float]) -> bool:
        return any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in costs)

    return [not beaten(point) for point in costs]


def importances(
    trials: Sequence[tuple[Mapping[str, Any], float]], objective: Objective, space: Mapping[str, Dimension]
) -> dict[str, float]:
    """Share of each parameter in what separates good trials from others, the largest first; empty for few trials.

    Optuna's PED-ANOVA (Watanabe, Bansal and Hutter, arXiv 2304.10255). Parameters that some trials lack, and those
    that never varied, are left out. `space` says which were searched by logarithms.
    """
    if len(trials) < FEWEST:
        return {}
    names = set.intersection(*(set(parameters) for parameters, _ in trials))
    varied = sorted(name for name in names if len({parameters[name] for parameters, _ in trials}) > 1)
    if not varied or len({value for _, value in trials}) < 2:
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    columns = {name: [parameters[name] for parameters, _ in trials] for name in varied}
    distributions = {name: _distribution(column, name in space and space[name].log) for name, column in columns.items()}
    again = optuna.create_study(direction="maximize" if objective.sign > 0 else "minimize")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for place, (_, value) in enumerate(trials):
            own = {name: column[place] for name, column in columns.items()}
            again.add_trial(optuna.trial.create_trial(params=own, distributions=distributions, value=value))
        importances = optuna.importance.get_param_importances(
            again, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )
    return {name: float(share) for name, share in importances.items()}


def history(study: Study) -> list[dict[str, Any]]:
    """The first objective in the order of trials, with the best so far."""
    objective = study.objectives[0]
    best, steps = math.nan, []
    for trial in sorted(study.records, key=lambda trial: trial.number):
        value = trial.score(objective.metric)
        if math.isfinite(value):
            better = math.isnan(best) or objective.sign * (value - best) > 0
            best = value if better else best
            steps.append({"number": trial.number, "value": value, "best": best})
    return steps


def _candidates(study: Study, level: float) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for trial in study.records:
        if all(math.isfinite(trial.score(objective.metric)) for objective in study.objectives):
            groups.setdefault((trial.block, trial.arm, json.dumps(dict(trial.levels))), []).append(trial)
    rows = []
    for (block, arm, _), trials in groups.items():
        intervals = {
            objective.metric: t_interval([t.score(objective.metric) for t in trials], level)
            for objective in study.objectives
        }
        rows.append(
            {
                "arm": arm,
                "block": block,
                "trials": [trial.number for trial in trials],
                "n": len(trials),
                "parameters": {name: _number(text) for name, text in trials[0].levels.items()},
                "values": {name: interval.mean for name, interval in intervals.items()},
                "halves": {name: interval.half for name, interval in intervals.items()},
                "seconds": sum(trial.seconds or 0.0 for trial in trials),
            }
        )
    return rows


def _distribution(values: Sequence[Any], log: bool) -> Any:
    """The part of the space that was searched."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if any(isinstance(value, str) for value in values):
        return CategoricalDistribution(sorted(set(map(str, values))))
    return FloatDistribution(min(values), max(values), log=log)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
