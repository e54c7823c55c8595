"""Effects, arms and the answer of studies whose truth is known, every number against its definition."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from ablations.analysis import factorial_summary
from ablations.analysis.words import minus
from ablations.statistics import (
    FactorialModel,
    Observation,
    Shown,
    compare_with,
    fit_factorial,
    moderate,
    paired_differences,
    t_interval,
)
from ablations.statistics.families import widening
from tests.ablations import fake_study
from tests.ablations.analysis.simple_study import DIFFUSION, NOTHING, analyse, by_name, rows, simple
from tests.ablations.fake_study import TERMS


def test_the_effects_of_a_constructed_table_are_recovered(tmp_path: Path) -> None:
    truth = {"diffusion": 0.03, "convection": 0.012, "convection:diffusion": 0.008}
    path = fake_study.pde_terms(tmp_path / "s", effects=truth, noise=0.0, logs=False)
    summary = analyse(path)
    for block in summary["blocks"]:
        for name, effect in by_name(block["objectives"][0]["effects"]).items():
            assert effect["estimate"] == pytest.approx(truth.get(name, 0.0), abs=1e-12)
    arm = by_name(summary["blocks"][0]["objectives"][0]["arms"], "arm")[DIFFUSION]
    # Half of the effects of diffusion and of its interaction change sign.
    assert arm["difference"] == pytest.approx(0.03 - 0.008, abs=1e-12)
    assert "the negative control reaction is zero within its interval" in summary["answer"]


def test_numbers_are_those_of_the_statistics(tmp_path: Path) -> None:
    path = fake_study.pde_terms(tmp_path / "s", logs=False)
    result = analyse(path)["blocks"][0]["objectives"][0]
    table = [row for row in rows(path) if row["block"] == "initial"]
    grid = [row for row in table if row["factor/diffusion"]]
    cells = [{name: row[f"factor/{name}"] for name in TERMS} for row in grid]
    observations = [
        Observation(cell, int(row["seed"]), float(row["test/accuracy"])) for cell, row in zip(cells, grid, strict=True)
    ]
    fit = fit_factorial(observations, dict.fromkeys(TERMS, ("off", "on")))
    effects = by_name(result["effects"])
    for one in moderate(
        fit, [term.effects[0] for term in fit.terms], max(float(row["test/accuracy"]) for row in table) / 2**23
    ):
        row = effects[one.effect.name]
        assert (row["estimate"], row["pooled_error"]) == pytest.approx(
            (one.effect.interval.mean, one.effect.error), abs=1e-12
        )
        assert (row["low"], row["p"]) == pytest.approx((one.interval.low, one.p), abs=1e-12)
        assert (row["low_together"], row["p_together"]) == pytest.approx((one.together.low, one.p_together), abs=1e-12)
    scores: dict[str, dict[int, float]] = {}
    for row in table:
        scores.setdefault(row["arm"], {})[int(row["seed"])] = float(row["test/accuracy"])
    arms = by_name(result["arms"], "arm")
    for one in paired_differences(scores, NOTHING):
        told = arms[one.arm]
        assert (told["difference"], told["difference_half"]) == pytest.approx((one.interval.mean, one.interval.half))
        assert told["p_holm"] == pytest.approx(one.p_holm)
    own = t_interval(list(scores["identity"].values()))
    assert (arms["identity"]["mean"], arms["identity"]["half"]) == pytest.approx((own.mean, own.half))
    assert arms["identity"]["levels"] is None
    assert [arms[name]["title"] for name in (NOTHING, DIFFUSION, "identity")] == ["[]", "diffusion", "identity"]
    assert [row["mean"] for row in result["arms"]] == sorted((row["mean"] for row in result["arms"]), reverse=True)


def test_the_answer_names_what_is_shown_and_what_is_not(tmp_path: Path) -> None:
    summary = analyse(fake_study.pde_terms(tmp_path / "s", blocks=("initial",), logs=False))
    effects = by_name(summary["blocks"][0]["objectives"][0]["effects"])
    one = effects["diffusion"]
    low, high = (f"{100 * one[side]:.1f}" for side in ("low_largest", "high_largest"))
    said = (
        f"Diffusion adds {100 * one['estimate']:.1f} points of test accuracy ({low} to {high}, a 95 % interval for "
        "the largest of 7 effects, 3 seeds)"
    )
    assert summary["answer"].startswith(said)
    nothing = {"diffusion": 0.0}
    summary = analyse(fake_study.pde_terms(tmp_path / "n", effects=nothing, blocks=("constant",), logs=False))
    assert summary["answer"].lower().count("no effect of") == 3
    assert summary["answer"].count("points would be shown with probability 0.8") == 3


def test_a_control_that_is_not_nothing_is_called_out(tmp_path: Path) -> None:
    path = fake_study.pde_terms(tmp_path / "s", effects={"reaction": 0.03}, blocks=("initial",), logs=False)
    summary = analyse(path)
    assert "the negative control reaction is NOT zero" in summary["answer"]
    (control,) = summary["blocks"][0]["objectives"][0]["controls"]
    assert not control["zero_inside"]
    assert control["smallest_margin"] > 0.03 - 0.005
    assert control["margin"] is None


def test_more_levels_are_compared_with_the_reference(tmp_path: Path) -> None:
    scores = {"a": [0.5, 0.51, 0.52], "b": [0.6, 0.611, 0.62], "c": [0.8, 0.81, 0.821]}
    summary = analyse(simple(tmp_path / "s", scores, block={"reference": {"mixer": "b"}}).write())
    effects = by_name(summary["blocks"][0]["objectives"][0]["effects"])
    assert effects.keys() == {"mixer: a - b", "mixer: c - b"}
    assert effects["mixer: c - b"]["estimate"] == pytest.approx(0.2)
    best = summary["blocks"][0]["objectives"][0]["against_best"]
    assert [(one["arm"], one["best"], one["told_apart"]) for one in best] == [
        ("mixer=b", "mixer=c", True),
        ("mixer=a", "mixer=c", True),
    ]
    assert best[1]["difference"] == pytest.approx((1.53 - 2.431) / 3)
    assert summary["answer"].startswith("The highest test accuracy is that of c: 81.0")


def test_answer_allows_for_the_choice_of_the_best(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    seeds = rng.normal(scale=0.01, size=3)
    means = {"a": 0.5, "b": 0.609, "c": 0.61, "d": 0.4, "e": 0.55}
    scores = {arm: (mean + seeds + rng.normal(scale=0.004, size=3)).tolist() for arm, mean in means.items()}
    summary = analyse(simple(tmp_path / "s", scores).write())
    result = summary["blocks"][0]["objectives"][0]
    found = {one["arm"]: one for one in result["against_best"]}
    assert [arm for arm, one in found.items() if not one["told_apart"]] == ["mixer=b"]
    truth = {one.arm: one for one in compare_with({a: dict(enumerate(v)) for a, v in scores.items()}, "c")}
    assert found["mixer=a"]["low"] == pytest.approx(truth["a"].interval.low)
    assert found["mixer=a"]["p"] == pytest.approx(truth["a"].p)
    less = minus(f"{-100 * truth['a'].interval.high:.2f} to {-100 * truth['a'].interval.low:.2f}")
    assert f"against a ({less}, p < 0.001 for all pairs); not told apart from b." in summary["answer"]
    low, high = result["best"]["low"], result["best"]["high"]
    assert f"95 % interval {100 * low:.2f} to {100 * high:.2f} as the best of 5, 3 seeds" in summary["answer"]
    assert result["best"]["mean"] - low >= high - result["best"]["mean"]  # the end that the choice flatters
    one_seed = analyse(simple(tmp_path / "one", {arm: values[:1] for arm, values in scores.items()}).write())
    assert "(no interval, 1 seed); +" in one_seed["answer"]
    assert "against a (no interval); not told apart from b, e, a and 1 more" in one_seed["answer"]


def test_generation_less_loss_is_better_and_tuning_is_kept(tmp_path: Path) -> None:
    summary = analyse(fake_study.mixers(tmp_path / "s"))
    (block,) = summary["blocks"]
    assert block["objectives"][0]["arms"][0]["title"] == "pde_ssm"
    assert [row["level"] for row in block["tuning"][:2]] == [0.002, 0.004]
    assert [one["title"] for one in block["sheets"]] == ["identity", "attention", "pde_ssm", "mamba", "pom"]
    assert {line["title"]: len(line["points"]) for line in block["curves"]}["pom"] == 8
    assert "lowest test loss is that of pde_ssm" in summary["answer"]


def test_seeds_for_an_effect_to_be_shown_are_the_fewest_with_the_power(tmp_path: Path) -> None:
    path = fake_study.pde_terms(tmp_path / "s", blocks=("initial",), logs=False)
    result = analyse(path)["blocks"][0]["objectives"][0]
    sd, row = result["fit"]["residual_sd"], by_name(result["effects"])["diffusion"]
    model = FactorialModel(
        dict.fromkeys(TERMS, ("off", "on")),
        [dict(zip(TERMS, levels, strict=True)) for levels in product(("off", "on"), repeat=3)] * 3,
        [seed for seed in range(3) for _ in range(8)],
        3,
    )
    alone, together = row["high"] - row["estimate"], row["high_together"] - row["estimate"]
    shown = Shown.of(model, 0.95, widening(model) * together / alone)
    for line in result["power"]["seeds_for"]:
        n, shift = line["seeds"], line["difference"] / (2 * sd / math.sqrt(8))
        assert shown.chance(shift * math.sqrt(n), n) >= factorial_summary.POWER
        assert n == 2 or shown.chance(shift * math.sqrt(n - 1), n - 1) < factorial_summary.POWER
        assert line["fewest"] <= n <= (line["most"] or math.inf)
    smallest = result["power"]["smallest_effect"]
    assert shown.chance(smallest / (2 * sd / math.sqrt(24)), 3) == pytest.approx(0.8, abs=1e-5)


def test_the_question_that_was_asked_is_answered_first(tmp_path: Path) -> None:
    effects = {"diffusion": 0.05, "convection": 0.03, "convection:diffusion": 0.012}
    blocks = ("constant",)
    plain = analyse(fake_study.pde_terms(tmp_path / "s", effects=effects, blocks=blocks, logs=False))
    assert plain["answer"].startswith("Diffusion adds")
    asked = analyse(
        fake_study.pde_terms(tmp_path / "t", effects=effects, blocks=blocks, logs=False, asks=["diffusion:convection"])
    )
    row = by_name(asked["blocks"][0]["objectives"][0]["effects"])["convection:diffusion"]
    assert row["asked"]
    assert (row["low_together"], row["p_together"]) == (row["low"], row["p"])  # a family of its own
    assert asked["answer"].startswith("Convection × diffusion adds")
    assert "; diffusion adds" in asked["answer"]


def test_an_arm_of_which_runs_diverged_is_never_the_best(tmp_path: Path) -> None:
    scores = {"a": [0.50, 0.51, 0.52], "b": [0.9, 0.9, 0.9], "c": [0.55, 0.56, 0.58]}
    fake = simple(tmp_path / "s", scores)
    for row in fake.rows:
        if row["arm"] == "mixer=b" and row["seed"] in (1, 2):
            row["state"] = "diverged"
    summary = analyse(fake.write())
    result = summary["blocks"][0]["objectives"][0]
    assert [row["title"] for row in result["arms"]] == ["c", "a", "b"]
    assert result["arms"][2]["outcomes"] == {"0": 0.9, "1": 0.5, "2": 0.5}  # the worst score of the block
    assert summary["answer"].startswith("The highest test accuracy is that of c")
    assert summary["answer"].endswith("not ranked, since runs diverged: b (2 of 3).")
    assert any("it counts as the worst" in line for line in summary["notes"])
    for row in fake.rows:
        row["state"] = "diverged" if row["seed"] == 1 else "complete"
    assert "no arm can be called the best" in analyse(fake.write())["answer"].lower()


@pytest.mark.parametrize(("count", "shown"), [(500.0, False), (None, True)])
def test_scores_without_spread_are_no_certainty(tmp_path: Path, count: float | None, shown: bool) -> None:
    """One image of 500 at each of three seeds, where nothing else varies."""
    fake = simple(tmp_path / "s", {"a": [0.9, 0.9, 0.9], "b": [0.902, 0.902, 0.902], "c": [0.9, 0.9, 0.9]})
    for row in fake.rows:
        row |= {} if count is None else {"test/n": count}
    result = analyse(fake.write())["blocks"][0]["objectives"][0]
    assert [one["told_apart"] for one in result["against_best"]] == [shown] * 2
    assert [one["p_together"] < 0.05 for one in result["effects"]] == [shown, False]
    assert {row["p"] < 0.05 for row in result["arms"] if row["arm"] == "mixer=b"} == {shown}


def test_tiny_differences_of_rounding_are_no_effect(tmp_path: Path) -> None:
    fake = simple(tmp_path / "s", {"a": [0.3, 0.3, 0.3], "b": [0.3 + 1e-17] * 3, "c": [0.3 + 6e-17] * 3})
    result = analyse(fake.write())["blocks"][0]["objectives"][0]
    assert not any(one["told_apart"] for one in result["against_best"])
    assert not any(one["p_together"] < 0.05 for one in result["effects"])
