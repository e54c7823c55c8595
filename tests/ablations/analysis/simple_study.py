"""A study of one factor has given scores; what the analysis makes of a study is read by name."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from ablations.analysis import study
from ablations.analysis import summary as summaries
from tests.ablations.fake_study import FakeStudy

DIFFUSION = "convection=off diffusion=on reaction=off"
NOTHING = "convection=off diffusion=off reaction=off"


def analyse(path: Path) -> dict[str, Any]:
    return summaries.analyse(study.read(path))


def rows(path: Path) -> list[dict[str, str]]:
    with (path / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def by_name(found: list[dict[str, Any]], key: str = "name") -> dict[str, dict[str, Any]]:
    return {row[key]: row for row in found}


def simple(path: Path, scores: dict[str, list[float]], **plan: Any) -> FakeStudy:
    """One factor whose levels are the arms."""
    factors = {"mixer": {"key": "mixer", "levels": list(scores)}}
    blocks = [{"name": "main", "factors": factors, **plan.pop("block", {})}]
    fake = FakeStudy(path, blocks=blocks, objectives=[{"metric": "test/accuracy"}], **plan)
    for arm, values in scores.items():
        for seed, value in enumerate(values):
            fake.trial(f"mixer={arm}", seed, {"test/accuracy": value}, levels={"mixer": arm})
    return fake
