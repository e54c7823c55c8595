"""Plans, blocks, factors and overrides that cannot be are refused in one line, with the nearest name."""

from __future__ import annotations

from typing import Any

import pytest

from ablations import plan as plans
from ablations import studyfile
from ablations.trials import check, expand
from operators import InputError

BAD_PLANS: list[tuple[str, Any, str]] = [
    ("seeds", 0, "seeds=0"),
    ("kind", "factorail", "did you mean 'factorial'"),
    ("objectives", [], "needs one objective"),
    ("objectives", [{"metric": "test/accuracy", "direction": "up"}], "maximize, minimize"),
    ("select", {"metric": "test/accuracy"}, "test split is read once"),
    ("blocks", [], "needs blocks"),
    ("block", [], "did you mean 'blocks'"),
    ("overrides", "model.dim=3", "must be a list"),
    ("tuning", {"key": "optimizer.lr", "levels": []}, "no levels"),
    ("tuning", {"levels": [1]}, "no 'key'"),
    ("tuning", {"key": "optimizer.lr", "levels": [1e-3], "extend": 2}, "two or more levels above 0"),
    ("tuning", {"key": "optimizer.lr", "levels": [0, 1e-3], "extend": 2}, "two or more levels above 0"),
    ("tuning", {"key": "optimizer.lr", "levels": [1e-3, 2e-3], "extend": -1}, "extend of tuning=-1"),
    ("name", "a\nb", "name="),
]


BAD_UNTIL: list[tuple[Any, str]] = [
    ({"decied": True}, "until has no 'decied': allowed are add, decide, halfwidth, most; did you mean 'decide'"),
    (["decide"], "until must be a mapping"),
    ({"most": 9}, "until needs either halfwidth: NUMBER or decide: true"),
    ({"decide": True, "halfwidth": 0.01}, "until needs either halfwidth: NUMBER or decide: true"),
    ({"decide": "yes"}, "decide of until='yes' must be true or false"),
    ({"halfwidth": 0}, "halfwidth of until=0 must be a number >= 1e-12"),
    ({"halfwidth": "0.5 points"}, "halfwidth of until='0.5 points' must be a number"),
    ({"halfwidth": 0.5}, "it is a share, as the objective is; half a percentage point is 0.005"),
    ({"decide": True, "most": 2}, "most of until=2 must be an integer >= 3 and <= 100"),
    ({"decide": True, "most": 1000}, "most of until=1000 must be an integer"),
    ({"decide": True, "add": 0}, "add of until=0 must be an integer >= 1"),
]


@pytest.mark.parametrize(("until", "expected"), BAD_UNTIL)
def test_bad_rule_for_adding_seeds_is_refused(node: dict[str, Any], until: Any, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        plans.read({**node, "until": until})
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_adding_seeds_needs_two_of_them_and_a_question_about_arms(node: dict[str, Any]) -> None:
    until = {"until": {"decide": True}}
    with pytest.raises(InputError, match="until needs seeds: 2 or more for its first look, and seeds=1 gives no"):
        plans.read({**node, **until, "seeds": 1})
    steps = {"key": "trainer.max_steps", "levels": [5, 9], "role": "budget"}
    node["blocks"][0]["factors"]["steps"] = steps
    with pytest.raises(InputError, match="factor steps of block window has role: budget"):
        plans.read({**node, **until})
    with pytest.raises(InputError, match="kind tune has no 'until'"):
        plans.read({"kind": "tune", "name": "a", "question": "b", "objectives": [{"metric": "val/accuracy"}], **until})


@pytest.mark.parametrize(("key", "value", "expected"), BAD_PLANS)
def test_bad_plan_is_refused(node: dict[str, Any], key: str, value: Any, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        plans.read({**node, key: value})
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


BAD_BLOCKS: list[tuple[dict[str, Any], str]] = [
    ({"factors": {}}, "no factors"),
    ({"factors": {"size": {"key": "mixer.size", "levels": []}}}, "factor size has levels []"),
    ({"factors": {"size": {"key": "mixer.size", "levels": [3]}}}, "two or more"),
    ({"factors": {"size": {"key": "mixer.size", "levels": [3, 3]}}}, "no two alike"),
    ({"factors": {"size": {"key": "mixer.size", "levels": [3, 5], "labels": ["a"]}}}, "one for each"),
    ({"factors": {"size": {"keys": "mixer.size", "levels": [3, 5]}}}, "did you mean 'key'"),
    ({"negative_controls": ["sise"]}, "did you mean 'size'"),
    ({"reference": {"sise": 3}}, "did you mean 'size'"),
    ({"reference": {"size": 4}}, "level of factor size"),
    ({"margin": 0}, "margin of block window=0 must be a number"),
    ({"design": "half"}, "design of block window"),
    ({"also": [{"name": "size=3 conv=0", "overrides": []}]}, "two arms"),
    ({"factors": {"size": {"key": "mixer.size", "levels": [3, 5], "role": "budgets"}}}, "did you mean 'budget'"),
    ({"factors": {"size": {"key": "mixer.size", "levels": [3, 5], "role": "budget"}}}, "key of the budget size"),
    (
        {"factors": {"steps": {"key": "trainer.max_steps", "levels": [5, 9], "role": "budget"}}, "reference": {}},
        "another factor beside it",
    ),
    (
        {"factors": {"match": {"key": "model.match", "levels": [{"params": "1M"}, {"macs": "1M"}], "role": "budget"}}},
        "of one kind",
    ),
    ({"factors": {"size": {"key": "data.subset", "levels": [0, 0.5], "role": "budget"}}}, "numbers above 0"),
    ({"design": "fraction", "budget": 4}, "block window: the full grid needs 4 cells x 2 seeds = 8 trials"),
]


@pytest.mark.parametrize(("change", "expected"), BAD_BLOCKS)
def test_bad_block_is_refused(node: dict[str, Any], change: dict[str, Any], expected: str) -> None:
    node["blocks"][0] |= change
    with pytest.raises(InputError) as caught:
        expand(plans.read(node), [])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        ({"key": "mixer.heads", "levels": [1, 2]}, "arm size=3 other=1: "),  # which pool does not have
        ({"key": "pde.state", "levels": [1, 2]}, "pde.* exists only with mixer=pde_ssm"),
        ({"key": "model.patch", "levels": [4, 5]}, "arm size=3 other=5: "),
        ({"key": "shell.gate", "levels": ["silu", "relu"]}, "shell.gate='relu' is not known"),
    ],
)
def test_factor_that_an_arm_cannot_have_is_refused(node: dict[str, Any], factor: dict[str, Any], expected: str) -> None:
    block = node["blocks"][0]
    block["factors"] = {"size": block["factors"]["size"], "other": factor}
    plan = plans.read(node)
    with pytest.raises(InputError) as caught:
        check(plan, expand(plan, []))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("mixer.size=3", "it is factor size"),
        ("shell.conv=5", "it is factor conv"),
        ("seed=3", "sets it itself"),
        ("ckpt=x", "sets it itself"),
        ("hydra.run.dir=x", "study.dir"),
        ("trainer.devices=2", "sets it itself"),
        ("model.dim=16,32", "several values"),
        ("model.dim=[", "cannot be read"),
    ],
)
def test_override_that_is_not_the_users_is_refused(node: dict[str, Any], given: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        expand(plans.read(node), [given])


def test_tuned_key_is_the_studys() -> None:
    with pytest.raises(InputError, match=r"study\.tuning=false"):
        expand(plans.read(studyfile.load("mixers")), ["optimizer.lr=1e-3"])


def test_unknown_study_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'pde_terms'"):
        studyfile.load("pde_term")
    with pytest.raises(InputError, match="cannot be read"):
        studyfile.load("nowhere/my.yaml")
