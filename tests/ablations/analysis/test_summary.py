"""The analysis of studies whose truth is known: every number against its definition, every gap said."""

from __future__ import annotations

import csv
import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ablations.analysis import curves, factorial_summary, search, study
from ablations.analysis import summary as summaries
from ablations.analysis.words import minus
from ablations.plan import Objective
from ablations.statistics import (
    FactorialModel,
    Observation,
    Shown,
    compare_with,
    fit_factorial,
    image_difference_over_seeds,
    moderate,
    paired_differences,
    t_interval,
)
from ablations.statistics.families import widening
from operators.errors import InputError
from tests.ablations import fake_study
from tests.ablations.fake_study import TERMS, FakeStudy

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
    low, high = (f"{100 * one[side]:.1f}" for side in ("low_together", "high_together"))
    said = (
        f"Diffusion adds {100 * one['estimate']:.1f} points of test accuracy ({low} to {high}, a 95 % interval that "
        "holds for 7 effects together, 3 seeds)"
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


def test_trials_that_give_no_score_are_counted_and_left_out(tmp_path: Path) -> None:
    states = {
        (DIFFUSION, 1): "diverged",
        ("identity", 0): "failed",
        ("identity", 1): "running",
        (NOTHING, 2): "waiting",
    }
    path = fake_study.pde_terms(
        tmp_path / "s", state=lambda block, arm, seed: states.get((arm, seed), "complete"), blocks=("initial",)
    )
    summary = analyse(path)
    progress = summary["progress"]
    assert [progress[key] for key in ("planned", "ended", "diverged", "failed", "running", "waiting")] == [
        27, 25, 1, 1, 1, 1,
    ]  # fmt: skip
    arms = by_name(summary["blocks"][0]["objectives"][0]["arms"], "arm")
    assert (arms[DIFFUSION]["n"], arms[DIFFUSION]["diverged"]) == (2, 1)
    assert arms[DIFFUSION]["pairs"] == 1
    assert arms[DIFFUSION]["difference_half"] is None
    assert (arms["identity"]["n"], arms["identity"]["half"]) == (1, None)
    notes = "\n".join(summary["notes"])
    for said in ("2 of 27 trials have not ended", f"1 trial diverged, which is a result: {DIFFUSION}", "1 trial failed",
                 "arms of which a run diverged, it counts as the worst", "left out of paired differences"):  # fmt: skip
        assert said in notes


def test_a_study_that_has_only_begun(tmp_path: Path) -> None:
    path = fake_study.pde_terms(tmp_path / "s", state=lambda block, arm, seed: "waiting", logs=False)
    summary = analyse(path)
    assert "no trial has a test accuracy yet" in summary["answer"]
    assert summary["blocks"][0]["objectives"][0]["effects"] == []


def test_one_seed_gives_no_interval_and_strict_json(tmp_path: Path) -> None:
    path = simple(tmp_path / "s", {"identity": [0.7], "attention": [0.8]}).write()
    analyse(path)

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    summary = json.loads((path / "summary.json").read_text(), parse_constant=refuse)
    result = summary["blocks"][0]["objectives"][0]
    assert [row["half"] for row in result["arms"]] == [None, None]
    assert any("no degree of freedom" in line for line in summary["notes"])
    said = "Mixer attention rather than identity adds 10.00 points of test accuracy"
    assert summary["answer"] == f"{said} (too few runs for an interval, 1 seed)."


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


def test_arm_that_varies_more_than_others_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    scores = {arm: (0.5 + rng.normal(scale=0.002, size=5)).tolist() for arm in "abcdefgh"}
    assert not any("Cochran" in line for line in analyse(simple(tmp_path / "s", scores).write())["notes"])
    scores["c"] = [0.4, 0.6, 0.45, 0.55, 0.5]
    (said,) = (line for line in analyse(simple(tmp_path / "t", scores).write())["notes"] if "Cochran" in line)
    assert said.startswith("the scores of c vary more over seeds than those of other arms (")


def test_test_images_are_told_apart(tmp_path: Path) -> None:
    fake = simple(tmp_path / "s", {"a": [0.5, 0.5], "b": [0.6, 0.6], "c": [0.7, 0.7]})
    right = np.random.default_rng(0).random((6, 50)) < 0.6
    for number in range(5):
        fake_study.predictions(tmp_path / "s" / "trials" / f"{number:05d}", right[number].tolist())
    fake_study.predictions(tmp_path / "s" / "trials" / "00005", right[5, :40].tolist())
    summary = analyse(fake.write())
    result = summary["blocks"][0]["objectives"][0]
    (one,) = result["images"]
    truth = image_difference_over_seeds(right[2:4], right[0:2])
    assert (one["arm"], one["images"], one["seeds"]) == ("mixer=b", 50, 2)
    assert (one["difference"], one["low"], one["high"]) == pytest.approx((truth.difference, truth.low, truth.high))
    assert "mixer=c and mixer=a were tested on different images: not compared image by image" in summary["notes"]


def of_two_kinds(path: Path, *, by_chance: bool = False) -> FakeStudy:
    """Two arms, the second right on 20 of 400 images more: on images of its own but for three, or by chance."""
    draw, images = np.random.default_rng(0), 400
    fake = simple(path, {"a": [0.0] * 3, "b": [0.0] * 3})
    own = [draw.permutation(images) < 300 + 20 * arm for arm in range(2)]
    for number, row in enumerate(fake.rows):
        right = own[number // 3].copy()
        right[draw.choice(images, 3, replace=False)] ^= True
        if by_chance:
            right = draw.permutation(right)
        row["test/accuracy"] = float(right.mean())
        fake_study.predictions(path / "trials" / f"{number:05d}", right.tolist())
    return fake


def test_what_test_images_add_is_in_the_answer_where_it_matters(tmp_path: Path) -> None:
    """Over seeds the arms are told apart, by 5 points; on other images of the kind they need not be."""
    summary = analyse(of_two_kinds(tmp_path / "s").write())
    result = summary["blocks"][0]["objectives"][0]
    (pair,), (effect,), arm = result["against_best"], result["effects"], by_name(result["arms"], "arm")["mixer=b"]
    assert pair["told_apart"]
    assert pair["low_images"] < 0 < pair["high_images"]
    assert effect["low_images"] < 0 < effect["low"]
    assert (effect["low_images"], effect["high_images"]) == pytest.approx(
        (arm["difference_low_images"], arm["difference_high_images"])
    )
    half = effect["high_images"] - effect["estimate"]
    error = stats.norm.ppf(0.975) * effect["image_error"]
    assert half == pytest.approx(math.hypot(effect["half"], error))
    low, high = minus(f"{100 * effect['low_images']:.1f}"), f"{100 * effect['high_images']:.1f}"
    assert f"for other test images too: mixer b rather than a {low} to {high}, not shown." in summary["answer"]
    assert result["best"]["low_images"] < result["best"]["low"]
    by_chance = analyse(of_two_kinds(tmp_path / "t", by_chance=True).write())
    assert "for other test images" not in by_chance["answer"]


def test_intervals_that_cannot_allow_for_other_images_say_so(tmp_path: Path) -> None:
    fake = of_two_kinds(tmp_path / "s")
    (tmp_path / "s" / "trials" / "00004" / "predictions.npz").unlink()
    summary = analyse(fake.write())
    (effect,) = summary["blocks"][0]["objectives"][0]["effects"]
    assert (effect["image_error"], effect["low_images"], effect["high_together_images"]) == (None, None, None)
    assert (
        "where predictions are missing (1 of 6 runs), intervals are for these test images, not for others"
        in summary["notes"]
    )
    generated = analyse(fake_study.mixers(tmp_path / "t"))["notes"]
    assert "intervals are for these test images, not for others: test loss is not kept image by image" in generated


def test_what_differs_between_runs_is_said(tmp_path: Path) -> None:
    fake = simple(tmp_path / "s", {"a": [0.5, 0.5], "b": [0.6, 0.6]})
    other = fake_study.provenance(1, git={"revision": "f" * 40, "dirty": True}, data={"name": "m", "fingerprint": "x"})
    (tmp_path / "s" / "trials" / "00001" / "provenance.json").write_text(json.dumps(other))
    (tmp_path / "s" / "trials" / "00003" / "provenance.json").unlink()
    fake.rows[2] |= {"params": 300_000, "macs": 20_000_000}
    summary = analyse(fake.write())
    notes = "\n".join(summary["notes"])
    for said in ("2 different revisions", "2 different contents (fingerprints) of mini", "no provenance.json",
                 "budgets are not matched"):  # fmt: skip
        assert said in notes
    assert {one["value"]: one["runs"] for one in summary["provenance"]["revision"]} == {
        fake_study.REVISION: 2,
        f"{'f' * 40} with uncommitted changes": 1,
    }


@pytest.mark.parametrize(
    ("tuned", "words", "note"),
    [
        (("true", "true"), ["tuned", "tuned"], ""),
        (("false", "false"), ["untuned", "untuned"], "untuned: every arm"),
        (("false", "true"), ["untuned", "tuned"], "tuned in 1 of 2 arms only"),
    ],
)
def test_untuned_learning_rates_are_said(tmp_path: Path, tuned: tuple[str, str], words: list[str], note: str) -> None:
    fake = simple(tmp_path / "s", {"a": [0.5, 0.5], "b": [0.6, 0.6]})
    for row in fake.rows:
        row["tuned"] = tuned[row["arm"] == "mixer=b"]
    summary = analyse(fake.write())
    arms = by_name(summary["blocks"][0]["objectives"][0]["arms"], "arm")
    assert [arms[f"mixer={name}"]["tuning"] for name in "ab"] == words
    said = [line for line in summary["notes"] if "tuned" in line]
    assert (note in said[0]) if note else not said


def test_rates_at_the_end_of_their_range_are_said(tmp_path: Path) -> None:
    fake = simple(tmp_path / "s", {"a": [0.5, 0.5], "b": [0.6, 0.6], "c": [0.7, 0.7]})
    chosen = {"mixer=a": 0.004, "mixer=b": 0.002, "mixer=c": 0.001}
    for row in fake.rows:
        row["learning_rate"] = chosen[row["arm"]]
    block = fake.rows[0]["block"]
    for number, (arm, rate) in enumerate((arm, rate) for arm in chosen for rate in (0.001, 0.002, 0.004)):
        row = {**fake.rows[0], "number": 100 + number, "block": f"tuning of {block}", "arm": arm, "learning_rate": rate}
        fake.rows.append(row)
    notes = [line for line in analyse(fake.write())["notes"] if "tuning chose" in line]
    assert notes == [
        f"tuning chose the {word} rate that it tried in 1 of 3 arms: a better one may lie beyond"
        for word in ("highest", "lowest")
    ]


@pytest.mark.parametrize(
    ("tuning", "warned"),
    [({"once": True, "seed": 3}, "at seed 3"), ({"seed": 2}, "at seed 2"), ({"once": False}, ""), ({}, "at seed 0")],
    ids=["once", "an older study", "inside seeds", "an older study without a seed"],
)
def test_a_choice_for_all_seeds_is_said_above_the_numbers(tmp_path: Path, tuning: dict[str, Any], warned: str) -> None:
    plan = {"tuning": {"key": "optimizer.lr", "levels": [0.001, 0.002], **tuning}, "seeds": 2}
    fake = simple(tmp_path / "s", {"a": [0.5, 0.5], "b": [0.6, 0.6]}, **plan)
    block = fake.rows[0]["block"]
    for number, row in enumerate(list(fake.rows)):
        fake.rows.append({**row, "number": 100 + number, "block": f"tuning of {block}", "learning_rate": 0.001})
    notes = [line for line in analyse(fake.write())["notes"] if "chosen once" in line]
    assert len(notes) == bool(warned)
    assert warned in "".join(notes)


def test_generation_less_loss_is_better_and_tuning_is_kept(tmp_path: Path) -> None:
    summary = analyse(fake_study.mixers(tmp_path / "s"))
    (block,) = summary["blocks"]
    assert block["objectives"][0]["arms"][0]["title"] == "pde_ssm"
    assert [row["level"] for row in block["tuning"][:2]] == [0.002, 0.004]
    assert [one["title"] for one in block["sheets"]] == ["identity", "attention", "pde_ssm", "mamba", "pom"]
    assert {line["title"]: len(line["points"]) for line in block["curves"]}["pom"] == 8
    assert "lowest test loss is that of pde_ssm" in summary["answer"]


def test_curves_are_read_from_both_logs_though_still_being_written(tmp_path: Path) -> None:
    fake_study.events(tmp_path, "val/accuracy", [0.1, 0.2, 0.3], cut=9)
    assert curves.read(tmp_path, "val/accuracy") == {10: pytest.approx(0.1), 20: pytest.approx(0.2)}
    assert curves.read(tmp_path, "val/loss") == {}
    table = tmp_path / "csv"
    table.mkdir()
    (table / "metrics.csv").write_text("epoch,step,val/accuracy\n0,9,\n0,10,0.5\n1,20,0.75\n")
    assert curves.read(table, "val/accuracy") == {10: 0.5, 20: 0.75}


def test_bands_are_over_the_curves_that_reach_so_far() -> None:
    band = curves.band([{1: 0.1, 2: 0.4}, {1: 0.3}], 0.95)
    interval = t_interval([0.1, 0.3])
    assert band[0] == {"step": 1, "mean": 0.2, "low": interval.low, "high": interval.high, "n": 2}
    assert (band[1]["step"], band[1]["n"]) == (2, 1)
    # Logged at other steps: no mean over whichever curves happen to be there.
    assert [point["step"] for point in curves.band([{1: 0.1, 3: 0.4}, {2: 0.3, 3: 0.3}], 0.95)] == [3]


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


def test_arms_matched_in_time_or_state_are_not_called_unmatched(tmp_path: Path) -> None:
    """Their parameters and MACs differ then, as they have to."""

    def notes(name: str, budget: str | None) -> str:
        path = fake_study.costed(tmp_path / name, **({} if budget is None else {"match/budget": budget}))
        table = list(csv.DictReader((path / "trials.csv").read_text().splitlines()))
        for place, row in enumerate(table):
            row |= {"params": str(1000 * (place + 1)), "macs": str(9000 * (place + 1))}
        with (path / "trials.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
        return " ".join(analyse(path)["notes"])

    assert "budgets are not matched" in notes("none", None)
    assert "budgets are not matched" not in notes("time", "time")


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


def test_wrong_directories_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not the directory of a study: it has no study\.yaml"):
        analyse(tmp_path)
    path = simple(tmp_path / "s", {"a": [0.5], "b": [0.6]}).write()
    table = (path / "trials.csv").read_text()
    for old, new, message in [
        (",complete,", ",done,", r"trial 0: state='done'.*complete"),
        ("mixer=a,0", "mixer=a,zero", "trial 0: "),
        ("number,", "n,", "lacks the columns number"),
    ]:
        (path / "trials.csv").write_text(table.replace(old, new, 1))
        with pytest.raises(InputError, match=message):
            analyse(path)
    fake = simple(tmp_path / "t", {"a": [0.5], "b": [0.6]})
    fake.rows[0]["factor/mixer"] = "z"
    with pytest.raises(InputError, match="factor mixer"):
        analyse(fake.write())
