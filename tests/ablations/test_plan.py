"""A plan is laid out as trials, written and read again, and each of the shipped studies can be carried out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import conf
import operators
import tasks.data
from ablations import plan as plans
from ablations import studyfile
from ablations.analysis.study import read as read_study
from ablations.layout import PLANNED
from ablations.scheduling import files
from ablations.trials import MAIN, SEARCH, TUNING, check, expand, literal, merge, sections
from operators import InputError
from tasks.config.composition import compose, read
from tasks.config.overrides import parse
from tests.ablations.conftest import TINY, empty_ledger

STUDIES = sorted(path.stem for path in (Path(conf.__file__).parent / "study").glob("*.yaml"))
SMALL = tuple(text for text in TINY if not text.startswith("mixer="))


def test_trials_are_seed_by_seed_every_arm(node: dict[str, Any]) -> None:
    trials = expand(plans.read(node), [])
    assert [trial.number for trial in trials] == list(range(10))
    assert [trial.seed for trial in trials] == [0] * 5 + [1] * 5
    assert [trial.arm for trial in trials[:5]] == [
        "size=3 conv=0",
        "size=3 conv=3",
        "size=5 conv=0",
        "size=5 conv=3",
        "identity",
    ]
    assert [trial.factors for trial in trials[5:]] == [trial.factors for trial in trials[:5]]
    config = compose(trials[3].overrides)
    assert (config["mixer"]["size"], config["shell"]["conv"]) == (5, 3)
    assert compose(trials[4].overrides)["mixer"]["name"] == "identity"


def test_more_seeds_only_add_trials_to_the_same_design(node: dict[str, Any]) -> None:
    few = plans.read(node)
    many = plans.read({**node, "seeds": 4})
    assert expand(many, [])[:10] == expand(few, [])
    assert sections(many, []) == sections(few, [])


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"objectives": [{"metric": "test/loss", "direction": "minimize"}]}, "objectives"),
        ({"overrides": [*TINY, "optimizer.lr=1e-3"]}, "overrides"),
        ({"tuning": {"key": "optimizer.lr", "levels": [1e-3]}}, "tuning"),
    ],
)
def test_what_changes_the_design_changes_its_digest(node: dict[str, Any], change: dict[str, Any], part: str) -> None:
    one, other = sections(plans.read(node), []), sections(plans.read({**node, **change}), [])
    assert {name for name in one if one[name] != other[name]} == {part}


def test_a_budget_has_amounts_and_a_role_that_nothing_has_is_in_no_digest(node: dict[str, Any]) -> None:
    plain = plans.read(node)
    levels = [{"params": "200K"}, {"params": 1_000_000}]
    factors = node["blocks"][0]["factors"] | {"match": {"key": "model.match", "levels": levels, "role": "budget"}}
    node["blocks"][0]["factors"] = factors
    (factor,) = [one for one in plans.read(node).blocks[0].factors if one.role]
    assert list(factor.amounts.values()) == [2e5, 1e6]
    assert factor.counts == "parameters"
    assert "role" not in yaml.safe_dump(plans.written(plain))
    declared = sections(plans.read(node), [])["blocks"]
    del factors["match"]["role"]
    assert sections(plans.read(node), [])["blocks"] != declared


def test_overrides_of_the_user_are_on_top_of_those_of_the_study(node: dict[str, Any]) -> None:
    trials = expand(plans.read(node), ["model.dim=24", "optimizer.lr=1e-3"])
    for trial in trials:
        config = compose(trial.overrides)
        assert (config["model"]["dim"], config["optimizer"]["lr"], config["model"]["depth"]) == (24, 1e-3, 1)
    assert sections(plans.read(node), ["model.dim=16"]) == sections(plans.read(node), [])  # what it is anyway


def test_an_arm_with_another_mixer_drops_the_settings_of_the_first() -> None:
    plan = plans.read(studyfile.load("pde_terms"))
    trials = expand(plan, ["pde.state=1", *SMALL])
    identity = next(trial for trial in trials if trial.arm == "identity")
    assert "pde" not in compose(identity.overrides)
    terms = next(trial for trial in trials if trial.arm == "convection=on diffusion=off reaction=on")
    assert compose(terms.overrides)["pde"]["terms"] == ["convection", "reaction"]
    assert compose(terms.overrides)["pde"]["state"] == 1


def test_factors_that_share_a_key_are_put_together() -> None:
    plan = plans.read(studyfile.load("pde_design"))
    trials = [trial for trial in expand(plan, []) if trial.block == "design"]
    config = compose(trials[0].overrides)
    assert config["pde"]["coefficients"] == dict.fromkeys(("diffusion", "convection", "reaction"), "fixed")
    assert len(trials) == 48
    assert plan.blocks[0].lay_out(plan.seeds).resolution == 4
    levels = [trial for trial in expand(plan, []) if trial.block == "levels" and trial.seed == 0]
    assert len(levels) == 1 + 3 + 2 + 2 + 3


def test_mixers_has_every_mixer_and_tunes_each_arm() -> None:
    plan = plans.read(studyfile.load("mixers"))
    trials = expand(plan, [])
    common = {trial.factors["mixer"] for trial in trials if trial.block == "common shell"}
    assert common == set(operators.names()) - {"fno"}
    published = {trial.factors["mixer"] for trial in trials if trial.block == "published shell"}
    assert published == {name for name in common if "published" in operators.describe(name).shells}
    tuning = [trial for trial in trials if trial.stage == TUNING]
    main = [trial for trial in trials if trial.stage == MAIN]
    for seed in range(plan.seeds):  # a seed's tuning, then the trials that it is for
        of_seed = [trial.stage for trial in trials if trial.seed == seed]
        assert of_seed == sorted(of_seed, key=[TUNING, MAIN].index)
    assert [trial.seed for trial in trials] == sorted(trial.seed for trial in trials)
    assert {trial.group for trial in tuning} == {trial.group for trial in main}
    assert plan.tuning is not None
    assert plan.tuning.beyond == ((1e-3, 2e-3), (5e-4, 1e-3), (16e-3, 8e-3), (32e-3, 16e-3))
    assert len(tuning) == len(main) * (3 + 4)
    assert plan.size == len(trials)
    assert all("trainer.test=false" in trial.overrides for trial in tuning)
    assert not any("trainer.test=false" in trial.overrides for trial in main)


def test_more_seeds_are_added_at_the_end_and_a_choice_for_all_seeds_comes_first() -> None:
    node = studyfile.load("mixers")
    few, more = (expand(plans.read({**node, "seeds": seeds}), []) for seeds in (1, 2))
    assert more[: len(few)] == few
    node["tuning"] |= {"once": True, "seed": 7}
    plan = plans.read(node)
    trials = expand(plan, [])
    chosen = [trial for trial in trials if trial.stage == TUNING]
    assert trials[: len(chosen)] == chosen
    assert {trial.seed for trial in chosen} == {7}
    assert plan.size == len(trials)
    assert plans.read(plans.written(plan)) == plan
    with pytest.raises(InputError, match="needs once: true"):
        plans.read({**node, "tuning": {**node["tuning"], "once": False}})


def test_arms_of_mixers_have_the_same_number_of_parameters() -> None:
    plan = plans.read(studyfile.load("mixers"))
    arms = {(trial.block, trial.arm): trial for trial in expand(plan, []) if trial.stage == MAIN and trial.seed == 0}
    # The least and the most that a mixer takes by itself.
    extremes = [("published shell", "mixer=identity conv=0"), ("published shell", "mixer=ss2d conv=3")]
    for key in extremes:
        run = read(arms[key].overrides)
        model = run.build(run.images(tasks.data.describe(**run.data)), device="meta")
        assert model.spec.dim == 48
        assert abs(model.cost().parameters / 200_000 - 1) <= 0.01


@pytest.mark.parametrize("study", ["tune", "pareto"])
def test_trials_of_a_search_do_not_read_the_test_split(study: str) -> None:
    trials = expand(plans.read(studyfile.load(study)), [])
    assert {trial.stage for trial in trials} == {SEARCH}
    assert all("trainer.test=false" in trial.overrides for trial in trials)


def test_pde_terms_is_small_enough_for_an_hour() -> None:
    plan = plans.read(studyfile.load("pde_terms"))
    assert len(expand(plan, [])) == 51
    assert plan.blocks[0].negative_controls == ("reaction",)
    assert plan.blocks[0].reference == dict.fromkeys(("convection", "diffusion", "reaction"), "off")


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
def test_every_study_can_be_carried_out(study: str) -> None:
    plan = plans.read(studyfile.load(study))
    trials = expand(plan, [])
    # One seed, and of the tuning one level: the others differ in a number.
    first = [
        t for t in trials if t.seed == 0 and (t.tunes is None or (plan.tuning and t.tunes == plan.tuning.levels[0]))
    ]
    check(plan, first[:: max(1, len(first) // 12)])


@pytest.mark.parametrize("value", [None, True, 3, 5e-4, "mixer", "a b", "it's", "true", "5", [1, [2, "x"]], {"a": [1]}])
def test_literal_is_read_back_by_hydra(value: Any) -> None:
    assert parse([f"x={literal(value)}"])[0].value() == value


def test_last_of_the_same_key_counts() -> None:
    assert merge(["a=1", "b=2"], ["+a=3"], ["c=4"]) == ("b=2", "+a=3", "c=4")


def test_a_plan_that_adds_seeds_counts_its_most_and_lays_out_its_design_once(node: dict[str, Any]) -> None:
    plan = plans.read({**node, "until": {"halfwidth": 0.004}})
    assert plan.until is not None
    assert plan.until.looks == (2, 4, 6, 8, 10, 12, 14, 16, 18, 20)
    assert plan.size == 20 * 5
    assert plans.read(plans.written(plan)) == plan
    first, later = expand(plan, []), expand(plan, [], 6)
    assert (len(first), len(later)) == (10, 30)
    assert later[:10] == first
    fixed = plans.read(node)
    assert "until" not in sections(fixed, [])
    assert {**sections(fixed, []), "until": sections(plan, [])["until"]} == sections(plan, [])
    assert (
        sections(plan, [])["until"]
        != sections(plans.read({**node, "seeds": 3, "until": {"halfwidth": 0.004}}), [])["until"]
    )


@pytest.mark.parametrize("study", STUDIES)
def test_plan_that_is_written_is_read_as_the_same(study: str, tmp_path: Path) -> None:
    plan = plans.read(studyfile.load(study))
    assert plans.read(yaml.safe_load(yaml.safe_dump(plans.written(plan), sort_keys=False))) == plan
    files.write_plan(tmp_path, plan, ["model.dim=48"], "sqlite:///study.db", empty_ledger())
    (tmp_path / "trials.csv").write_text(f"{','.join(PLANNED)}\n")
    again = read_study(tmp_path).plan
    assert replace(again, mixer_space=plan.mixer_space) == plan
