"""`fastvim` against its definition by loops, and what one layer can and cannot see."""

from types import SimpleNamespace

import pytest
import torch

import operators
from operators import InputError
from operators.testing.cases import run
from operators.testing.checks import assert_close
from tests.operators.mixers.drawn import image, make, set_to
from tests.operators.mixers.scan.plain import assert_defined_by, on_grid, plain

NAME = "fastvim"
EXACT = 1e-12


def made(**params):
    return make(NAME, state_dim=2, backend="chunked", **params)


def convolved(branch, tokens):
    if branch.conv is None:
        return tokens
    taps, outputs = branch.conv.weight.shape[-1], []
    for t in range(len(tokens)):
        total = branch.conv.bias
        for k in range(taps):  # the last tap meets the token itself
            if t - (taps - 1 - k) >= 0:
                total = total + branch.conv.weight[:, 0, k] * tokens[t - (taps - 1 - k)]
        outputs.append(total * torch.sigmoid(total))
    return outputs


def by_loops(mixer):
    core = mixer.core

    def mixed(x):
        height, width = x.shape[:2]
        rows = [[(i, j) for j in range(width)] for i in range(height)]
        lines = rows if core.order == "row" else [list(line) for line in zip(*rows, strict=True)]
        outputs = {}
        for branch, backwards in zip(core.branches, (False, True), strict=True):
            places = [place for line in lines for place in line]
            walk = places[::-1] if backwards else places
            v = dict(zip(walk, convolved(branch, [x[place] for place in walk]), strict=True))
            pooled = []
            for line in lines[::-1] if backwards else lines:
                stacked = torch.stack([v[place] for place in line])
                pooled.append(stacked.mean(0) if core.pool == "mean" else stacked.max(0).values)
            silent = SimpleNamespace(**{**vars(branch), **branch._modules, **branch._parameters})
            silent.conv, silent.D = None, torch.zeros_like(branch.D)
            scanned = plain(silent, pooled)
            for line, y in zip(lines, scanned[::-1] if backwards else scanned, strict=True):
                for place in line:
                    outputs[place] = outputs.get(place, 0) + (y + branch.D * v[place]) / 2
        return on_grid(outputs, height, width)

    return mixed


@pytest.mark.parametrize(
    ("grid", "params"),
    [
        ((3, 5), {}),
        ((3, 4), {"order": "col", "conv": 3}),
        ((4, 3), {"pool": "max", "conv": 2, "rank": 2}),
        ((1, 3), {}),
        ((3, 1), {"order": "col"}),
        ((1, 1), {"conv": 2}),
    ],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    mixer = made(**params)
    assert_defined_by(mixer, by_loops(mixer), image(*grid))


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_an_image_of_equal_columns_is_scanned_as_one_of_them(pool):
    mixer, column = made(pool=pool), image(5, 1)
    x = column.expand(-1, -1, 4, -1).contiguous()
    assert_close(run(mixer, x), run(mixer, column).expand_as(x).contiguous(), EXACT, "y")


def test_without_its_term_of_the_token_itself_places_in_a_line_are_alike():
    mixer, x = made(), image(4, 5)
    set_to(0.0, *(branch.D for branch in mixer.core.branches))
    y = run(mixer, x)
    assert_close(y, y[:, :, :1].expand_as(y).contiguous(), EXACT, "y along lines")
    shuffled = torch.stack([x[:, i, torch.randperm(5)] for i in range(4)], 1)
    assert_close(run(mixer, shuffled), y, EXACT, "y of shuffled lines")


@pytest.mark.parametrize("order", ["row", "col"])
def test_columns_are_rows_of_the_transposed_image(order):
    other = {"row": "col", "col": "row"}[order]
    x = image(4, 5)
    y = run(made(order=order, conv=3), x)
    transposed = run(made(order=other, conv=3), x.transpose(1, 2).contiguous())
    assert_close(transposed, y.transpose(1, 2).contiguous(), EXACT, "y")


@pytest.mark.parametrize(("order", "grid"), [("row", (5, 1)), ("col", (1, 5))])
def test_what_pictures_show_of_one_column_is_that_of_mamba(order, grid):
    mixer, x = made(order=order, conv=3), image(*grid)
    mamba = make("mamba", state_dim=2, conv=3, order=order)
    mamba.load_state_dict(mixer.state_dict())
    shown = mixer.inspect(x)
    for key, expected in mamba.inspect(x).items():
        assert_close(shown[key].detach(), expected.detach(), EXACT, key)
    step, influence = (mixer.inspect(image(4, 7))[key] for key in ("step", "influence"))
    assert step.shape == influence.shape == (2, 2, 4, 7)


def test_the_scan_costs_nothing_for_longer_lines():
    costs = [operators.create(NAME, 16, shell=operators.BARE).cost(8, width).macs for width in (4, 40)]
    assert costs[0] == costs[1]
    tall = operators.create(NAME, 16, shell=operators.BARE).cost(16, 4).macs
    assert tall == 2 * costs[0]


@pytest.mark.parametrize(
    ("shell", "params", "conv"), [("common", {}, None), ("published", {}, 4), ("published", {"conv": 0}, None)]
)
def test_a_preset_says_what_none_stands_for(shell, params, conv):
    for branch in operators.create(NAME, 16, shell=shell, **params).core.branches:
        assert (None if branch.conv is None else branch.conv.weight.shape[-1]) == conv


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"order": "cols"}, r"mixer\.order='cols' is not known: allowed are row, col; did you mean 'col'"),
        ({"pool": "mean_"}, r"mixer\.pool='mean_' is not known: allowed are mean, max; did you mean 'mean'"),
        ({"state_dim": 0}, r"mixer\.state_dim=0 must be an integer >= 1"),
    ],
    ids=str,
)
def test_impossible_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        make(NAME, **params)
