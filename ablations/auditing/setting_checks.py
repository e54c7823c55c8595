"""What each trial ran with: its configuration, the level that tuning chose for it, its data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from hydra.core.override_parser.types import Override

from ablations.analysis.runs import flatten
from ablations.auditing.checks import ABSENT, Check, number, same
from ablations.auditing.evidence import ORIGIN, SETTINGS, AuditedTrial, Evidence
from ablations.auditing.trial_checks import at
from ablations.layout import COMPLETE, ENDED, PARAMETER, SKIPPED, TABLE
from ablations.registration import environment_lock
from ablations.scheduling import matches
from ablations.trials import MAIN, TUNING, carried_out, literal, merge
from operators.errors import InputError
from tasks.config.composition import compose
from tasks.config.overrides import parse

_LR = "optimizer.lr"
_SAME_DATA = ("fingerprint", "subset")
"""Of the data in provenance.json; a trial that does not read the test split cannot count its corrupt images."""


def configurations(evidence: Evidence) -> Check:
    """Each config.yaml against the plan's overrides, the seed, and the level that tuning or the search chose."""
    check = Check("config.yaml against the plan")
    for trial in evidence.trials:
        if not trial.ended:
            check.skip(f"the trial is {trial.state}")
        elif trial.config is None:
            check.skip("no config.yaml to be read")
        elif trial.planned is None:
            check.skip(evidence.reasons.get("planned", "the plan does not have the trial"))
        else:
            try:
                stated = _overrides(evidence, trial)
                composed = {**_composed(stated), "seed": trial.planned.seed}
                expected = matches.recalled(composed, evidence.study.path)
            except InputError as error:
                check.skip(f"this version cannot compose it: {' '.join(str(error).split())}")
                continue
            _compare(check, trial, trial.config, expected, stated)
    _composed.cache_clear()
    return check


def _compare(
    check: Check, trial: AuditedTrial, config: Mapping[str, Any], expected: Mapping[str, Any], stated: tuple[str, ...]
) -> None:
    """Settings that the plan does not state may have had another default in another revision of the code."""
    here = environment_lock.collect().revision
    same_code = here is not None and (trial.provenance or {}).get("git", {}) == dict(here)
    recorded, derived = dict(flatten(config)), dict(flatten(expected))
    for key in {**recorded, **derived}:
        pair = recorded.get(key, ABSENT), derived.get(key, ABSENT)
        if same_code or same(*pair) or key == "seed" or any(_states(_parsed(text), key) for text in stated):
            check.compare(trial.file(SETTINGS), key, *pair)
        else:
            check.skip("the trial ran another revision of the code, with another default")


def _overrides(evidence: Evidence, trial: AuditedTrial) -> tuple[str, ...]:
    assert trial.planned is not None
    plan, own = evidence.study.plan, carried_out(trial.planned)
    if plan.searches:
        chosen = {key.removeprefix(PARAMETER): text for key, text in trial.row.items() if key.startswith(PARAMETER)}
        values = {key: _proposed(evidence, key, text) for key, text in chosen.items() if text}
        return merge(own, [f"{key}={literal(value)}" for key, value in values.items()])
    if plan.tuning is not None and trial.planned.stage == MAIN:
        best = chosen_level(evidence, trial)
        if best is None:
            raise InputError("the level that tuning chose cannot be derived")
        return merge(own, [f"{plan.tuning.key}={literal(best)}"])
    return own


def _proposed(evidence: Evidence, key: str, text: str) -> Any:
    """The value that the table writes as `text`."""
    dimension = evidence.study.plan.space.get(key)
    choices = () if dimension is None else dimension.choices
    matching = [choice for choice in choices if str(choice) == text]
    if matching:
        return matching[0]
    value = number(text)
    return int(value) if isinstance(value, float) and value.is_integer() and "." not in text else value


@lru_cache(maxsize=1024)
def _composed(overrides: tuple[str, ...]) -> Mapping[str, Any]:
    return compose(overrides)


@lru_cache(maxsize=4096)
def _parsed(override: str) -> Override:
    return parse([override])[0]


def _states(override: Override, key: str) -> bool:
    """Whether an override says itself what `key` is: of a group, it says the name alone."""
    own = override.key_or_group.lstrip("+")
    inside = isinstance(override.value(), Mapping) and key.startswith(f"{own}.")
    return inside or key in (own, f"{own}.name")


def tuned(evidence: Evidence) -> Check:
    """The level that each trial ran with is the best on validation of the trials that tuned it."""
    check = Check("tuned level from the tuning trials' own scores")
    tuning = evidence.study.plan.tuning
    if tuning is None:
        return check
    for trial in evidence.trials:
        plan = trial.planned
        if plan is None or trial.state not in ENDED:
            continue
        if plan.stage == TUNING and plan.beyond is not None:
            best = chosen_level(evidence, trial)
            if best is None:
                check.skip("a tuning trial has no score to be read")
            else:
                check.compare(TABLE, f"trial {trial.number}, skipped", trial.state == SKIPPED, best != plan.beyond)
        elif plan.stage == MAIN and trial.ended and trial.config is not None:
            best = chosen_level(evidence, trial)
            if best is None:
                check.skip("a tuning trial has no score to be read")
                continue
            check.compare(trial.file(SETTINGS), tuning.key, at(trial.config, tuning.key), best)
            if tuning.key == _LR:
                check.compare(TABLE, f"trial {trial.number}, {_LR}", number(trial.row.get("learning_rate", "")), best)
    return check


def chosen_level(evidence: Evidence, trial: AuditedTrial) -> float | None:
    """The level with the best score in metrics.json among the trials that tune `trial`; the lowest between equals.

    A trial that ended without a score is worse than any other. None where a score cannot be read.
    """
    plan, planned = evidence.study.plan, trial.planned
    assert plan.tuning is not None
    assert planned is not None
    ranks: list[tuple[float, float]] = []
    for other in evidence.trials:
        own = other.planned
        if own is None or own.stage != TUNING or own.group != planned.group or own.tunes is None:
            continue
        if not plan.tuning.once and own.seed != planned.seed:
            continue
        if planned.stage == TUNING and own.number >= planned.number:
            continue
        if other.state not in ENDED or (other.state == COMPLETE and other.metrics is None):
            return None
        score = (other.metrics or {}).get(plan.select.metric) if other.state == COMPLETE else None
        ranks.append((-float("inf") if score is None else plan.select.sign * score, -own.tunes))
    return -max(ranks)[1] if ranks else None


def data(evidence: Evidence) -> Check:
    """All arms had the same data, and each trial the seed of its row."""
    check = Check("the same data and seeds for all arms")
    first: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for trial in evidence.trials:
        if not trial.ended:
            continue
        if trial.provenance is None:
            check.skip("no provenance.json to be read")
            continue
        file, origin = trial.file(ORIGIN), trial.provenance
        check.compare(file, "seed", str(origin.get("seed")), trial.row["seed"])
        facts: Mapping[str, Any] = origin.get("data") or {}
        other, known = first.setdefault(str(facts.get("name")), (file, facts))
        for key in _SAME_DATA:
            check.compare(f"{file}, as in {other}", f"data.{key}", facts.get(key), known.get(key))
    check.skip("runs record neither their initial weights nor the order of their data")
    return check
