"""What a study that adds seeds says: its looks, and intervals and p-values that hold at all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ablations.analysis import study as studies
from ablations.analysis.axes import looks
from ablations.analysis.summary import analyse
from ablations.layout import LOOKS
from ablations.reporting import sections, tables
from ablations.reporting.elements import Folded, ReportTable
from ablations.statistics.looks import level_at, p_at_all
from ablations.until import written_looks
from tests.ablations import fake_study

PLANNED = (3, 6, 8)


def adding(path: Path, seeds: int, effects: dict[str, float], until: dict[str, Any], **block: Any) -> Path:
    """Nine arms at so many seeds; the study looks at three, six and eight."""
    fake_study.pde_terms(path, seeds, effects=effects, blocks=("constant",), logs=False)
    plan = fake_study.yaml.safe_load((path / "study.yaml").read_text())
    plan |= {"seeds": 3, "until": {"most": 8, **until}}
    plan["blocks"][0] |= block
    (path / "study.yaml").write_text(fake_study.yaml.safe_dump(plan))
    return path


def look_again(path: Path) -> list[tuple[int, int, int, bool]]:
    """Make the looks, as the study does, up to the one that ends it."""
    study, found = studies.read(path), []
    assert study.plan.until is not None
    for seeds in study.plan.until.looks:
        found.append(looks.look(study, seeds))
        if found[-1].stop:
            break
    (path / LOOKS).write_text(written_looks(found))
    return [(look.seeds, look.intervals, look.enough, look.stop) for look in found]


EFFECTS = {"diffusion": 0.03, "convection": 0.012, "reaction": 0.0}


def test_the_answer_says_how_often_it_looked_and_why_it_stopped(tmp_path: Path) -> None:
    path = adding(tmp_path / "s", 8, EFFECTS, {"decide": True})
    assert look_again(path)[-1] == (8, 3, 2, True)  # the three terms, of which reaction does nothing
    summary = analyse(studies.read(path))
    assert summary["answer"].endswith(
        " Seeds are added until each effect of the answer is shown, or shown to be within the margin: it looked 3 "
        "times, at 3, 6, 8 seeds, and stopped at its most seeds, where 2 of 3 decide. Intervals and p-values hold at "
        "all 3 planned looks together, up to 8 seeds."
    )
    assert [look["seeds"] for look in summary["looks"]] == [3, 6, 8]
    told = next(one for one in sections.report(summary, []) if isinstance(one, Folded) and one.summary == "3 looks")
    assert isinstance(told.inside, ReportTable)
    assert [(row[0], row[1], row[3]) for row in told.inside.rows] == [
        ("3", "0 of 3", "more seeds"),
        ("6", "2 of 3", "more seeds"),
        ("8", "2 of 3", "stop"),
    ]
    assert tables.everything(summary)["looks"] == summary["looks"]


def test_a_margin_decides_that_an_effect_does_not_matter(tmp_path: Path) -> None:
    path = adding(tmp_path / "s", 8, EFFECTS, {"decide": True}, margin=0.01)
    found = look_again(path)
    assert found[-1] == (6, 3, 3, True)
    answer = analyse(studies.read(path))["answer"]
    assert "it looked 2 times, at 3, 6 seeds, and stopped, since all 3 of 3 decide" in answer


def test_intervals_that_are_narrow_end_it(tmp_path: Path) -> None:
    path = adding(tmp_path / "s", 8, EFFECTS, {"halfwidth": 0.01})
    assert [stop for *_, stop in look_again(path)] == [False, True]
    summary = analyse(studies.read(path))
    assert "until each interval of the answer reaches at most 0.01 to either side" in summary["answer"]
    effects = summary["blocks"][0]["objectives"][0]["effects"]
    mains = [one for one in effects if one["kind"] == "main"]
    assert max(one["high_together"] - one["low_together"] for one in mains) / 2 <= 0.02


def test_a_look_does_not_know_of_later_seeds(tmp_path: Path) -> None:
    few, many = (adding(tmp_path / f"s{seeds}", 8, EFFECTS, {"decide": True}) for seeds in (6, 8))
    study = studies.read(few)
    later = [record for record in study.records if record.seed < 6]
    part = studies.Study(study.path, study.plan, study.content, tuple(later))
    assert looks.look(part, 6) == looks.look(studies.read(many), 6)
    assert looks.look(part, 3) == looks.look(studies.read(many), 3)


def test_all_intervals_and_p_values_hold_at_every_look(tmp_path: Path) -> None:
    fixed = analyse(
        studies.read(fake_study.pde_terms(tmp_path / "f", 8, effects=EFFECTS, blocks=("constant",), logs=False))
    )
    path = adding(tmp_path / "s", 8, EFFECTS, {"decide": True})
    look_again(path)
    summary = analyse(studies.read(path))
    plain, held = (one["blocks"][0]["objectives"][0] for one in (fixed, summary))
    assert summary["level"] == 0.95
    assert held["fit"]["level"] == level_at(PLANNED, 8)
    for name, key in (("effects", "half"), ("arms", "half"), ("arms", "difference_half"), ("against_best", "high")):
        for before, now in zip(plain[name], held[name], strict=True):
            assert (before[key] is None) == (now[key] is None)
            if before[key] is not None:
                assert now[key] > before[key]
    for name, key in (("effects", "p"), ("arms", "p"), ("terms", "p"), ("interactions", "p")):
        for before, now in zip(plain[name], held[name], strict=True):
            if before[key] is not None:
                assert now[key] == p_at_all(PLANNED, 8, before[key])
    assert [one["told_apart"] for one in held["against_best"]] == [one["p"] < 0.05 for one in held["against_best"]]
    for one in held["effects"]:
        assert (one["low_together"] > 0 or one["high_together"] < 0) == (one["p_together"] < 0.05)
    assert held["images"] == plain["images"]  # which are about other images, not about other seeds


def test_before_its_first_look_a_study_says_when_that_is(tmp_path: Path) -> None:
    path = adding(tmp_path / "s", 2, EFFECTS, {"decide": True})
    answer = analyse(studies.read(path))["answer"]
    assert "the study has not looked yet, and its first look is at 3 seeds" in answer
    (path / LOOKS).write_text(json.dumps([{"seeds": 3}]))
    with pytest.raises(ValueError, match=r"looks\.json is damaged"):
        analyse(studies.read(path))
