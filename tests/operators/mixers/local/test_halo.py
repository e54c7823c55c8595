import math

import pytest
import torch

import operators
from operators import InputError
from operators.testing.checks import assert_close
from tests.operators.mixers.linear.plain import assert_is, bare, by_image, image

NAME = "halo"
CASES = [
    ((5, 7), {"block": 2, "halo": 1}),
    ((7, 4), {"block": 3, "halo": 2, "bias": True}),
    ((3, 5), {"block": 2, "halo": 0}),
    ((6, 3), {"block": 4, "halo": 1, "relative": False}),
    ((2, 3), {}),
]


def one(mixer, tokens, grid):
    core, (height, width) = mixer.core, grid
    q, k = (tokens @ core.qk.weight.T + (0 if core.qk.bias is None else core.qk.bias)).chunk(2, dim=-1)
    middle, outputs = core.block + core.halo - 1, []

    def seen(place, length):
        first = place // core.block * core.block
        return range(max(0, first - core.halo), min(length, first + core.block + core.halo))

    for row in range(height):
        for column in range(width):
            heads = []
            for h in range(core.heads):
                part = slice(h * core.head_width, (h + 1) * core.head_width)
                own, weights, values = q[row * width + column, part], [], []
                for i in seen(row, height):
                    for j in seen(column, width):
                        score = own @ k[i * width + j, part] / math.sqrt(core.head_width)
                        if core.rows is not None:
                            score = score + own @ (core.rows[middle + i - row] + core.columns[middle + j - column])
                        weights.append(score.exp())
                        values.append(tokens[i * width + j, part])
                weights = torch.stack(weights)
                heads.append(weights @ torch.stack(values) / weights.sum())
            outputs.append(torch.cat(heads))
    return torch.stack(outputs)


@pytest.mark.parametrize(("grid", "params"), CASES, ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    assert_is(bare(NAME, 4, heads=2, **params), image(*grid, width=4), by_image(one))


@pytest.mark.parametrize("params", [{"block": 3, "halo": 1}, {"block": 2, "halo": 0, "relative": False}], ids=str)
def test_the_map_of_inspect_gives_the_output_and_averages(params):
    mixer, x = bare(NAME, heads=2, **params), image(5, 7)
    weights = mixer.inspect(x)["map"]
    assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]), 1e-13, "sums of rows")
    v = x.flatten(1, 2).unflatten(-1, (2, 8)).transpose(1, 2)
    assert_close(mixer(x), (weights @ v).transpose(1, 2).reshape(x.shape), 1e-13, "y")


def test_tokens_of_a_block_see_the_same_and_the_border_cuts_the_halo():
    seen = bare(NAME, block=4, halo=2).inspect(image(8, 9, batch=1))["map"][0, 0].view(8, 9, 8, 9) > 0
    assert torch.equal(seen[0, 0], seen[3, 3])
    assert [seen[0, 0].sum().item(), seen[4, 4].sum().item(), seen[0, 8].sum().item()] == [36, 42, 18]


def test_every_vector_of_the_tables_is_used():
    mixer = bare(NAME, heads=2, block=3, halo=2)
    mixer(image(12, 13)).square().sum().backward()
    for table in (mixer.core.rows, mixer.core.columns):
        assert table.shape == (9, 8)
        assert (table.grad.abs().amax(1) > 0).all()
    assert mixer.no_weight_decay() == {"core.rows", "core.columns"}
    assert bare(NAME, relative=False).no_weight_decay() == set()


def test_cost_counts_what_a_block_sees():
    core = operators.create(NAME, 32, block=4, halo=1).core
    assert core.core_cost(8, 9).mixing_macs == 8 * 12 * (2 * 6 * 6 + 6 + 6) * 32


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"block": 0}, "mixer.block=0 must be an integer >= 1"),
        ({"halo": -1}, "mixer.halo=-1 must be an integer >= 0"),
        ({"relative": "yes"}, "mixer.relative='yes' is not known"),
        ({"heads": 3}, "mixer.heads=3 must divide the width 16"),
    ],
    ids=str,
)
def test_bad_parameters_are_named(params, message):
    with pytest.raises(InputError, match=message):
        operators.create(NAME, 16, **params)
