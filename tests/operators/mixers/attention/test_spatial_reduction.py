import math

import pytest
import torch

import operators
from operators import InputError
from operators.testing.checks import assert_close
from tests.operators.mixers.linear.plain import assert_is, bare, by_image, image

NAME = "spatial_reduction"
CASES = [
    ((5, 7), {}),
    ((4, 3), {"reduction": 3, "bias": False}),
    ((1, 3), {"reduction": 4}),
    ((3, 2), {"reduction": 1}),
]


def one(mixer, tokens, grid):
    """Squares of r × r tokens, those beyond the border zero, then every token's weights one by one."""
    core, (height, width) = mixer.core, grid
    step, read = core.reduction, []
    for top in range(0, height, step):
        for left in range(0, width, step):
            if core.reduce is None:
                read.append(tokens[top * width + left])
                continue
            z = core.reduce.bias
            for i in range(min(step, height - top)):
                for j in range(min(step, width - left)):
                    z = z + core.reduce.weight[:, :, i, j] @ tokens[(top + i) * width + left + j]
            z = (z - z.mean()) / (z.var(correction=0) + 1e-6).sqrt()
            read.append(z * core.norm.weight + core.norm.bias)
    k, v = (torch.stack(read) @ core.kv.weight.T + (0 if core.kv.bias is None else core.kv.bias)).chunk(2, dim=-1)
    outputs = []
    for q in tokens:
        heads = []
        for part in (slice(0, q.shape[0] // 2), slice(q.shape[0] // 2, None)):
            weights = (k[:, part] @ q[part] / math.sqrt(q[part].shape[0])).exp()
            heads.append(weights @ v[:, part] / weights.sum())
        outputs.append(torch.cat(heads))
    return torch.stack(outputs)


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
@pytest.mark.parametrize(("grid", "params"), CASES, ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params, backend):
    # One key gets all the weight whatever the query, and some gradients are rounding errors.
    mixer, x = bare(NAME, 4, heads=2, backend=backend, **params), image(*grid, width=4)
    if grid == (1, 3):
        assert_close(mixer(x), by_image(one)(mixer, x), 1e-12, "y")
    else:
        assert_is(mixer, x, by_image(one))


def test_the_map_of_inspect_gives_the_output():
    mixer, x = bare(NAME, heads=2, reduction=3), image(5, 7)
    weights = mixer.inspect(x)["map"]
    assert weights.shape == (2, 2, 35, 6)
    _, v = mixer.core.keys_values(x)
    assert_close(mixer(x), torch.einsum("bhnm,bmhd->bnhd", weights, v).reshape(x.shape), 1e-13, "y")


def test_cost_on_a_grid_that_the_reduction_does_not_divide():
    cost = operators.create(NAME, 32, reduction=4, shell=operators.BARE).core.core_cost(9, 8)
    assert cost.projection_macs == 6 * 2 * 32**2
    assert cost.mixing_macs == 6 * 16 * 32**2 + 2 * 72 * 6 * 32
    assert cost.state_elements == 2 * 6 * 32


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"reduction": 0}, "mixer.reduction=0 must be an integer >= 1"),
        ({"heads": 3}, "mixer.heads=3 must divide the width 16"),
        ({"bias": "no"}, "mixer.bias='no' is not known"),
    ],
    ids=str,
)
def test_bad_parameters_are_named(params, message):
    with pytest.raises(InputError, match=message):
        operators.create(NAME, 16, **params)
