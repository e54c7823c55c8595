"""Fronts hold what nothing beats in quality and cost, and searches say what mattered."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations.analysis import search
from ablations.plan import Objective
from tests.ablations import fake_study
from tests.ablations.analysis.simple_study import analyse, rows


def test_tuning_finds_the_best_and_what_matters(tmp_path: Path) -> None:
    path = fake_study.search(tmp_path / "s", "tune")
    found = analyse(path)["search"]
    ended = [row for row in rows(path) if row["state"] == "complete"]
    best = max(ended, key=lambda row: float(row["val/accuracy"]))
    assert found["candidates"][0]["arm"] == best["arm"]
    assert len(found["candidates"]) == len(ended) == 36
    shares = found["importances"]["val/accuracy"]
    assert next(iter(shares)) == "optimizer.lr"
    assert sum(shares.values()) == pytest.approx(1)
    assert found["history"][-1]["best"] == pytest.approx(float(best["val/accuracy"]))
    assert "one run, so without an interval" in analyse(path)["answer"]


def test_fronts_say_what_is_measured_and_what_is_shown(tmp_path: Path) -> None:
    block = analyse(fake_study.costed(tmp_path / "s"))["blocks"][0]
    fronts = {one["cost"]: one for one in block["objectives"][0]["fronts"]}
    assert tuple(fronts) == fake_study.COSTS
    stands = {point["arm"]: point for point in fronts["train/step_ms"]["points"]}
    on = {name for name, point in stands.items() if point["stands"] == "measured"}
    assert on == {f"mixer={name}" for name in ("identity", "conv", "attention", "pde_ssm")}
    assert stands["mixer=ss2d"]["stands"] == "beaten"
    point = stands["mixer=conv"]
    assert point["cost_low"] < point["cost"] < point["cost_high"]
    assert point["quality_low"] < point["quality"] < point["quality_high"]
    one = analyse(fake_study.costed(tmp_path / "one", seeds=1))["blocks"][0]["objectives"][0]["fronts"][0]
    assert "beaten" not in {point["stands"] for point in one["points"]}
    assert {point["cost_low"] for point in one["points"]} == {None}
    plain = analyse(fake_study.mixers(tmp_path / "plain"))["blocks"][0]["objectives"][0]
    assert plain["fronts"] == []


def test_the_front_is_what_nothing_beats(tmp_path: Path) -> None:
    path = fake_study.search(tmp_path / "s", "pareto")
    found = analyse(path)["search"]["candidates"]
    points = [(row["values"]["val/accuracy"], -row["values"]["macs"]) for row in found]
    for row, (quality, thrift) in zip(found, points, strict=True):
        beaten = any(q >= quality and t >= thrift and (q, t) != (quality, thrift) for q, t in points)
        assert row["front"] is not beaten
    objectives = [Objective("a", "maximize"), Objective("b", "minimize")]
    assert search.front([[1, 1], [1, 1], [0, 2]], objectives) == [True, True, False]


def test_too_few_trials_have_no_importances() -> None:
    assert search.importances([({"x": float(n)}, float(n)) for n in range(9)], Objective("a"), {}) == {}
    assert search.importances([({"x": 1.0}, float(n)) for n in range(20)], Objective("a"), {}) == {}
