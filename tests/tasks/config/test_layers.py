"""Parameters that change over depth, of one mixer and of those in a hybrid."""

from __future__ import annotations

from typing import Any

import pytest

import models
from operators import InputError
from tasks.config.composition import compose
from tasks.config.images import Images
from tasks.config.layers import mixer_specs
from tasks.config.schema import parse

SHELL = {"name": "common"}


def specs(**node: Any) -> list[tuple[str, dict[str, Any]]]:
    made = mixer_specs(node, SHELL, None)
    return [(spec.name, dict(spec.params)) for spec in (made if isinstance(made, list) else [made])]


def built(overrides: list[str]) -> models.Trunk:
    images = Images(2, 1, (8, 8), (0.0,), (1.0,), (1, 8, 8))
    return parse(compose(overrides)).build(images, device="meta")


def test_a_list_of_orders_is_a_schedule() -> None:
    assert specs(name="mamba", order=["row", "col"]) == [("mamba", {"order": "row"}), ("mamba", {"order": "col"})]


def test_schedules_of_several_parameters_repeat_together() -> None:
    made = specs(name="mamba", over_depth={"order": ["row", "col"], "state_dim": [1, 2, 3]})
    turns = [("row", 1), ("col", 2), ("row", 3), ("col", 1), ("row", 2), ("col", 3)]
    assert made == [("mamba", {"order": order, "state_dim": size}) for order, size in turns]


def test_a_schedule_is_as_short_as_it_can_be() -> None:
    assert len(specs(name="mamba", order=["row", "col", "row", "col"])) == 2
    assert specs(name="mamba", order=["row", "row"]) == [("mamba", {"order": "row"})]


def test_in_a_hybrid_a_schedule_goes_over_the_layers_of_its_mixer() -> None:
    made = specs(
        name="hybrid", pattern=["mamba", "pool", "mamba"], params={"mamba": {"order": ["row", "col", "snake_row"]}}
    )
    assert [params.get("order") for _, params in made] == [
        "row", None, "col", "snake_row", None, "row", "col", None, "snake_row",
    ]  # fmt: skip


def test_blocks_of_a_run_follow_the_schedule() -> None:
    overrides = ["mixer=ss2d", "mixer.over_depth.orders=[[row],[col_r]]", "model.depth=3", "model.dim=8"]
    model = built(overrides)
    assert [mixer.core.along for mixer in model.mixers] == [("row",), ("col_r",), ("row",)]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["mixer=mamba", "mixer.order=[row,cl]"], "'cl'.*did you mean 'col'"),
        (["mixer=mamba", "mixer.over_depth.ordr=[row,col]"], "did you mean 'order'"),
        (["mixer=mamba", "mixer.over_depth.order=row"], "must be a list: a value for each layer in turn"),
        (["mixer=mamba", "mixer.over_depth.order=[]"], "must be a list: a value for each layer in turn"),
        (["mixer=mamba", "++mixer.over_depth=3"], "mixer.over_depth=3 must be a mapping"),
        (["mixer=mamba", "mixer.order=[row,col]", "mixer.over_depth.order=[row]"], "exclude each other"),
        (["mixer=mamba", "model.match={state: 6272}", "mixer.over_depth.state_dim=[1,2]"], "exclude each other"),
    ],
)
def test_schedules_that_cannot_be_are_refused(overrides: list[str], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        built(overrides)
