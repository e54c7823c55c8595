"""`localmamba` against its definition by loops, and its windows."""

import pytest
import torch
import torch.nn.functional as F

import operators
from operators import InputError
from operators.testing.cases import run
from operators.testing.checks import assert_close
from tests.operators.mixers.drawn import image, make
from tests.operators.mixers.scan.plain import assert_defined_by, on_grid, plain


def walk(name, height, width):
    """Places in order; windows row by row, those at the end as small as the grid leaves them."""
    forward = name.removesuffix("_r")
    if forward == "row":
        places = [(i, j) for i in range(height) for j in range(width)]
    elif forward == "col":
        places = [(i, j) for j in range(width) for i in range(height)]
    else:
        side = int(forward.removeprefix("window_"))
        corners = [(i, j) for i in range(0, height, side) for j in range(0, width, side)]
        places = [
            (i, j)
            for top, left in corners
            for i in range(top, min(top + side, height))
            for j in range(left, min(left + side, width))
        ]
    return places[::-1] if name.endswith("_r") else places


def by_loops(mixer):
    core = mixer.core

    def mixed(x):
        total = 0
        for name, branch in zip(core.along, core.branches, strict=True):
            places = walk(name, *x.shape[:2])
            scanned = plain(branch, [x[place] for place in places])
            y = on_grid(dict(zip(places, scanned, strict=True)), *x.shape[:2])
            if core.attention is not None:
                norm = core.attention.norm
                mean = F.layer_norm(y, y.shape[-1:], norm.weight, norm.bias, 1e-6).mean((0, 1))
                y = y * torch.sigmoid(core.attention.select(F.gelu(core.attention.reduce(mean))))
            total = total + y
        return total

    return mixed


@pytest.mark.parametrize(
    ("grid", "params"),
    [
        ((4, 5), {"window": 2}),
        ((3, 4), {"orders": ["col_r", "window_3", "window_2_r", "window"], "window": 1, "merge": "sum", "rank": 2}),
        ((1, 1), {}),
    ],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    mixer = make("localmamba", state_dim=2, **params)
    assert_defined_by(mixer, by_loops(mixer), image(*grid, batch=1))


def test_the_side_of_windows_is_a_parameter():
    for side in (2, 5):
        along = operators.create("localmamba", 8, window=side).core.along
        assert along == ("row", "row_r", f"window_{side}", f"window_{side}_r")
    named = operators.create("localmamba", 8, orders=["window_2", "window_7_r"], window=3).core.along
    assert named == ("window_2", "window_7_r")


def test_the_attention_weighs_the_channels_of_each_order():
    mixer, x = make("localmamba", orders=["window"], window=2), image(4, 5)
    plain_sum = make("localmamba", orders=["window"], window=2, merge="sum")
    plain_sum.core.branches.load_state_dict(mixer.core.branches.state_dict())
    weight = mixer.inspect(x)["weight"]
    assert weight.shape == (2, 1, 6)
    assert 0 < weight.min() < weight.max() < 1
    assert_close(run(mixer, x), weight.detach()[:, 0, None, None] * run(plain_sum, x), 1e-12, "y")
    assert "weight" not in plain_sum.inspect(x)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"window": 0}, r"mixer\.window=0 must be an integer >= 1"),
        ({"merge": "mean"}, r"mixer\.merge='mean' is not known"),
        ({"orders": []}, r"mixer\.orders=\[\] must be a list of scan orders"),
        ({"orders": "row"}, r"mixer\.orders='row' must be a list"),
        ({"orders": ["windo"]}, r"scan order 'windo' is not known"),
    ],
)
def test_refusals(params, message):
    with pytest.raises(InputError, match=message):
        operators.create("localmamba", 8, **params)
