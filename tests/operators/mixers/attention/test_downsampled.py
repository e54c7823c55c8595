import math

import pytest
import torch

import operators
from operators import InputError
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.linear.plain import assert_is, bare, by_image, image, turned

NAME = "udit"


def one(mixer, tokens, grid):
    """Token by token: who is in its class, where in it, and how alike queries and keys are."""
    core = mixer.core
    height, width = grid
    reach, step = core.conv.kernel_size[0] // 2, core.factor
    places = [(i, j) for i in range(height) for j in range(width)]
    convolved = []
    for i, j in places:
        z = tokens[i * width + j] + core.conv.bias
        for r in range(-reach, reach + 1):
            for c in range(-reach, reach + 1):
                if 0 <= i + r < height and 0 <= j + c < width:
                    z = z + core.conv.weight[:, 0, reach + r, reach + c] * tokens[(i + r) * width + j + c]
        convolved.append(z)
    q, k = (torch.stack(convolved) @ core.qk.weight.T + core.qk.bias).chunk(2, dim=-1)
    heads = []
    for h in range(core.heads):
        part = slice(h * core.head_width, (h + 1) * core.head_width)
        pair = [q[:, part], k[:, part]]
        if core.rope:
            share = core.head_width // 4
            turns = [10000.0 ** (-t / share) for t in range(share)]
            angles = [[i // step * turn for turn in turns] + [j // step * turn for turn in turns] for i, j in places]
            pair = [turned(each, torch.tensor(angles, dtype=q.dtype)) for each in pair]
        unit_q, unit_k = (each / each.square().sum(-1, keepdim=True).sqrt() for each in pair)
        sharpness = core.scale[h].exp() if core.scale[h] < math.log(100) else 100.0
        rows = []
        for a, here in enumerate(places):
            like = [
                b for b, there in enumerate(places) if not any((m - n) % step for m, n in zip(here, there, strict=True))
            ]
            weights = torch.stack([(sharpness * (unit_q[a] @ unit_k[b])).exp() for b in like])
            rows.append(weights @ tokens[like][:, part] / weights.sum())
        heads.append(torch.stack(rows))
    return torch.cat(heads, dim=-1)


CASES = [
    ((4, 6), {}),
    ((3, 5), {"factor": 2, "kernel": 3}),
    ((5, 4), {"factor": 3, "kernel": 1, "rope": False}),
    ((2, 7), {"factor": 1, "kernel": 3}),
    ((1, 3), {"factor": 2}),
]


@pytest.mark.parametrize(("grid", "params"), CASES, ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    assert_is(bare(NAME, 8, heads=2, **params), image(*grid, width=8), by_image(one))


def test_cosines_are_scaled_by_a_hundred_at_most():
    mixer, x = bare(NAME, heads=2), image(4, 6)
    with torch.no_grad():
        mixer.core.scale.fill_(4.6052)
        largest = mixer(x)
        mixer.core.scale.fill_(7.0)
        assert_close(mixer(x), largest, 1e-14, "y")
        mixer.core.scale.fill_(2.0)
        assert_differs(mixer(x), largest, 1e-2, "y")


@pytest.mark.parametrize("grid", [(4, 6), (5, 3)])
def test_the_map_of_inspect_gives_the_output(grid):
    mixer, x = bare(NAME, heads=2), image(*grid)
    weights = mixer.inspect(x)["map"]
    v = x.flatten(1, 2).unflatten(-1, (2, 8)).transpose(1, 2)
    assert_close(mixer(x), (weights @ v).transpose(1, 2).reshape(x.shape), 1e-13, "y")
    assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]), 1e-13, "sums of rows")
    fine = weights.unflatten(-1, grid).unflatten(2, grid)
    assert not fine[:, :, 0, 0, 1::2].any()
    assert not fine[:, :, 0, 0, :, 1::2].any()


BAD = [
    ({"factor": 0}, r"mixer.factor=0 must be an integer >= 1"),
    ({"kernel": 4}, r"mixer.kernel=4 must be odd"),
    ({"heads": 8}, r"mixer.rope=True needs a head width divisible by 4, not 2"),
    ({"rope": "yes"}, r"mixer.rope='yes' is not known"),
    ({"factr": 2}, r"mixer udit has no 'factr'.*; did you mean 'factor'\?"),
]


@pytest.mark.parametrize(("wrong", "message"), BAD, ids=str)
def test_bad_input_is_named_in_one_line(wrong, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create(NAME, 16, **wrong)
    assert "\n" not in str(caught.value)
