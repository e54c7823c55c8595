"""A study's ranks beside those of published scores: which arms are compared, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import operators
from ablations import plan as plans
from ablations import report, studyfile
from ablations.analysis.published.recipes import beside, published_recipes, settings
from ablations.trials import expand
from models.published.hybrids import HYBRIDS
from tests.ablations.analysis.simple_study import analyse
from tests.ablations.fake_study import FakeStudy

STM = {"conv": 0.83, "window": 0.81, "halo": 0.82, "spatial_reduction": 0.80, "dcn": 0.84}
"""Accuracies in the order of the tiny models, but for conv."""
LION = {"lit": 0.74, "d": 0.78, "s": 0.76}
TINY = (82.2, 82.3, 83.0, 82.1, 83.3)


def study(path: Path, blocks: Sequence[Mapping[str, Any]], scores: Mapping[str, float], **plan: Any) -> Path:
    """A study of three seeds; an arm's score is that of the level of its first factor."""
    fake = FakeStudy(path, blocks=list(blocks), objectives=[plan.pop("objective", {"metric": "test/accuracy"})], **plan)
    rng = np.random.default_rng(0)
    for block in blocks:
        (first, *others) = block["factors"].items()
        for level in first[1]["levels"]:
            for other in others[0][1]["levels"] if others else [None]:
                levels = {first[0]: level} | ({others[0][0]: other} if others else {})
                arm = " ".join(f"{name}={value}" for name, value in levels.items())
                for seed in range(3):
                    value = scores[level] + 0.01 * seed + 0.002 * rng.normal()
                    metric = fake.plan["objectives"][0]["metric"]
                    fake.trial(arm, seed, {metric: value}, block=block["name"], levels=levels)
    return fake.write()


def mixers(name: str, levels: Sequence[str], key: str = "mixer", **more: Any) -> dict[str, Any]:
    return {"name": name, "factors": {"mixer": {"key": key, "levels": list(levels)}}, **more}


def test_every_published_score_is_that_of_a_card_or_of_a_model() -> None:
    of_models = {model.score for model in HYBRIDS.values()}
    for recipe in published_recipes():
        for entry in recipe.entries:
            card = operators.describe(str(entry.settings["mixer"]))
            known = {number.value for number in card.published} | of_models
            assert set(entry.scores) <= known, (recipe.name, entry.name)
            assert len(entry.scores) == len(recipe.models)


def test_recipes_share_no_arm_and_have_members_that_can_be_permuted() -> None:
    entries = [entry for recipe in published_recipes() for entry in recipe.entries]
    assert len({entry.name for entry in entries}) == len({str(entry.settings) for entry in entries}) == len(entries)
    assert {len(recipe.entries) for recipe in published_recipes()} <= set(range(3, 9))
    assert len({entry.scores for entry in entries}) == len(entries)


def test_the_shipped_study_has_every_entry_in_one_setting() -> None:
    plan = replace(plans.read(studyfile.load("published")), tuning=None)
    arms = [settings(arm.overrides) for arm in expand(plan, [], 1)]
    entries = [entry for recipe in published_recipes() for entry in recipe.entries]
    rests = [rest for arm in arms for entry in entries if (rest := beside(entry, arm)) is not None]
    assert len(rests) == len(arms) == len(entries)
    assert all(rest == rests[0] for rest in rests)


def test_arms_are_entries_whose_settings_they_have() -> None:
    lion = {entry.name: entry for recipe in published_recipes() for entry in recipe.entries if recipe.name == "LION"}
    curves = settings(["mixer=lion", "mixer.orders=[snake_row,snake_col]", "mixer.variant=s", "shell=common"])
    assert [name for name, entry in lion.items() if beside(entry, curves) is not None] == ["s, curves"]
    assert beside(lion["s, curves"], curves) == {"shell": "common"}
    default = settings(["mixer=lion"])
    assert [name for name, entry in lion.items() if beside(entry, default) is not None] == ["d"], "LION-D is default"
    assert beside(lion["d"], settings(["mixer=lion", "mixer.orders=[col]"])) is None
    assert beside(lion["d"], settings(["mixer=gone", "mixer.variant=d"])) is None


def test_a_study_of_two_recipes(tmp_path: Path) -> None:
    rows = mixers("rows", LION, "mixer.variant", overrides=["mixer=lion"])
    path = study(tmp_path / "s", [mixers("stm", [*STM, "attention"]), rows], {**STM, **LION, "attention": 0.9})
    (setting,) = analyse(path)["published"]
    stm, lion = setting["recipes"]
    assert [arm["name"] for arm in stm["arms"]] == list(STM)
    tiny = next(model for model in stm["models"] if model["model"] == "tiny")
    assert tiny["correlation"] == pytest.approx(stats.spearmanr(TINY, list(STM.values())).statistic)
    assert lion["models"][0]["correlation"] == pytest.approx(1)
    micro = [arm["published"][0] for arm in stm["arms"]]
    means = (stats.rankdata(micro) + stats.rankdata(TINY)) / 2
    both = stats.spearmanr(means, list(STM.values())).statistic
    together = setting["together"]
    assert together["weights"] == pytest.approx([4 / 6, 2 / 6])
    assert together["correlation"] == pytest.approx((4 * both + 2) / 6)
    assert together["low_seeds"] <= together["correlation"] <= together["high_seeds"]
    assert together["low_members"] < together["correlation"] < together["high_members"]


def test_settings_are_compared_each_by_itself_and_less_may_be_better(tmp_path: Path) -> None:
    block = mixers("main", STM)
    block["factors"]["conv"] = {"key": "shell.conv", "levels": [0, 3]}
    losses = {name: 1 - score for name, score in STM.items()}
    objective = {"metric": "test/loss", "direction": "minimize"}
    path = study(tmp_path / "s", [block], losses, objective=objective, overrides=["shell=common"])
    settings = analyse(path)["published"]
    assert [each["setting"] for each in settings] == ["shell.conv=0", "shell.conv=3"]
    for setting in settings:
        tiny = setting["recipes"][0]["models"][1]
        assert tiny["correlation"] == pytest.approx(stats.spearmanr(TINY, list(STM.values())).statistic)


def test_two_arms_of_a_recipe_are_no_ranking(tmp_path: Path) -> None:
    path = study(tmp_path / "s", [mixers("main", ["conv", "dcn", "identity"])], {**STM, "identity": 0.7})
    assert analyse(path)["published"] == []
    assert "Published scores" not in report.build(path).read_text()


def test_the_report_shows_the_correlations_and_the_scores(tmp_path: Path) -> None:
    path = study(tmp_path / "s", [mixers("main", STM)], STM)
    page = report.build(path).read_text()
    assert "<h2>Published scores</h2>" in page
    assert "STM evaluation, tiny: rank correlation 0.70." in page
    assert "The models of STM evaluation share their arms" in page
    figure = (path / "figures" / "published-STM-evaluation-tiny.svg").read_text()
    assert figure.count("<circle") == len(STM)
    assert all(f">{name}</text>" in figure for name in STM)
    table = (path / "published_ranks.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in table[1:]] == ["STM evaluation", "STM evaluation", "together"]
    summary = json.loads((path / "summary.json").read_text())
    assert summary["published"] == analyse(path)["published"], "drawn anew, the same numbers"


def test_a_study_of_published_arms_alone_answers_by_their_ranks(tmp_path: Path) -> None:
    rows = mixers("rows", LION, "mixer.variant", overrides=["mixer=lion"])
    answer = analyse(study(tmp_path / "s", [mixers("stm", STM), rows], {**STM, **LION}))["answer"]
    assert answer.startswith("Agreement with the published ranks is shown: rank correlation 0.83 (95 % intervals 0.1")
    assert "8 mixers of 2 recipes); block stm: the highest test accuracy is that of dcn" in answer
    three = analyse(study(tmp_path / "three", [rows], LION))["answer"]
    assert three.startswith("No agreement with the published ranks is shown: rank correlation 1.00 (95 % intervals")
    more = [mixers("stm", [*STM, "attention"])]
    assert "ranks" not in analyse(study(tmp_path / "more", more, {**STM, "attention": 0.9}))["answer"]
