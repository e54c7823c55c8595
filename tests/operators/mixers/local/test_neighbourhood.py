import math

import pytest
import torch

import operators
from operators import InputError
from operators.testing.cases import run_with_gradients
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.linear.plain import assert_is, bare, by_image, image

NAME = "neighbourhood"
CASES = [
    ((4, 5), {"window": 3}),
    ((3, 5), {"window": 2, "position_bias": False, "bias": False}),
    ((5, 4), {"window": 2, "dilation": 2}),
    ((2, 5), {"window": 3, "dilation": 2}),  # fewer tokens than a window has, unequally many in classes
    ((1, 3), {}),
]


def seen_from(place, length, window, dilation):
    """By the kernel's own expression: window around the place, moved in by what it lies beyond either end."""
    own, remainder = divmod(place, dilation)
    members = list(range(remainder, length, dilation))
    if len(members) <= window:
        return members
    left, right = window // 2, (window - 1) // 2
    start = max(own - left, 0) + (len(members) - own - right - 1 if own + right >= len(members) else 0)
    return members[start : start + window]


def one(mixer, tokens, grid):
    core, (height, width) = mixer.core, grid
    q, k = (tokens @ core.qk.weight.T + (0 if core.qk.bias is None else core.qk.bias)).chunk(2, dim=-1)
    outputs = []
    for row in range(height):
        for column in range(width):
            here, heads = row * width + column, []
            rows, columns = (seen_from(at, n, core.window, core.dilation) for at, n in ((row, height), (column, width)))
            for h in range(core.heads):
                part = slice(h * core.head_width, (h + 1) * core.head_width)
                weights, values = [], []
                for i in rows:
                    for j in columns:
                        score = q[here, part] @ k[i * width + j, part] / math.sqrt(core.head_width)
                        if core.table is not None:
                            steps = [(i - row) // core.dilation, (j - column) // core.dilation]
                            score = score + core.table[(h, *(core.window - 1 + step for step in steps))]
                        weights.append(score.exp())
                        values.append(tokens[i * width + j, part])
                weights = torch.stack(weights)
                heads.append(weights @ torch.stack(values) / weights.sum())
            outputs.append(torch.cat(heads))
    return torch.stack(outputs)


@pytest.mark.parametrize(("grid", "params"), CASES, ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    assert_is(bare(NAME, 4, heads=2, **params), image(*grid, width=4), by_image(one))


@pytest.mark.parametrize(
    ("grid", "params"),
    [
        ((19, 9), {"window": 5}),
        ((17, 10), {"window": 4}),
        ((23, 18), {"window": 3, "dilation": 2}),
        ((10, 19), {"window": 3, "dilation": 9}),
        ((3, 20), {"window": 9, "position_bias": False}),
    ],
    ids=str,
)
def test_tiles_give_what_gathered_keys_give(grid, params):
    tiled, plain = (bare(NAME, heads=2, backend=backend, **params) for backend in ("tiled", "reference"))
    y, gradients = run_with_gradients(tiled, image(*grid))
    expected, expected_gradients = run_with_gradients(plain, image(*grid))
    assert_close(y, expected, 1e-13, "y")
    for name, gradient in gradients.items():
        assert_close(gradient, expected_gradients[name], 1e-12, f"gradient of {name}")


@pytest.mark.parametrize("params", [{"window": 3}, {"window": 2, "dilation": 2}, {"window": 9}], ids=str)
def test_the_map_of_inspect_gives_the_output_and_averages(params):
    mixer, x = bare(NAME, heads=2, **params), image(5, 7)
    weights = mixer.inspect(x)["map"]
    assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]), 1e-13, "sums of rows")
    v = x.flatten(1, 2).unflatten(-1, (2, 8)).transpose(1, 2)
    assert_close(mixer(x), (weights @ v).transpose(1, 2).reshape(x.shape), 1e-13, "y")


def test_every_token_sees_equally_many():
    """Windows move inwards at the border: nothing is cut off, and none is centred there."""
    seen = bare(NAME, window=3, dilation=2).inspect(image(8, 9, batch=1))["map"][0, 0] > 0
    assert seen.sum(-1).tolist() == [9] * 72
    corner = seen[0].view(8, 9).nonzero().tolist()
    assert corner == [[i, j] for i in (0, 2, 4) for j in (0, 2, 4)]


def test_no_map_of_all_tokens_is_held():
    """The largest tensor that is made grows with the number of tokens, not with its square."""
    from operators.runtime.torch_private import TorchDispatchMode

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.elements = max(self.elements, out.numel())
            return out

    sizes = []
    for side in (16, 32):
        with torch.no_grad(), Largest() as watch:
            bare(NAME, 4, heads=1, window=3)(image(side, side, width=4, batch=1))
        sizes.append(watch.elements)
    assert sizes[1] <= 4 * sizes[0] < 32**4 / 4


def test_dilated_blocks_alternate_where_asked_for():
    import models

    images = {"image_size": (32, 32), "in_channels": 1, "num_classes": 2}
    for alternate, expected in ((False, [2, 2, 2]), (True, [1, 2, 1])):
        spec = models.MixerSpec(NAME, params={"dilation": 2, "alternate": alternate})
        with torch.device("meta"):
            mixers = models.create("vit_nano", mixers=spec, depth=3, dim=16, **images).mixers
        assert [mixer.core.dilation for mixer in mixers] == expected


def test_backends_differ_in_nothing_that_is_counted():
    costs = [operators.create(NAME, 32, backend=backend).core.core_cost(14, 21) for backend in ("tiled", "reference")]
    assert costs[0] == costs[1]
    assert costs[0].mixing_macs == 2 * 14 * 21 * 49 * 32
    assert operators.create(NAME, 32, dilation=4).core.core_cost(9, 40).mixing_macs == 2 * 9 * 40 * 3 * 7 * 32


def test_the_table_matters_and_can_be_left_out():
    with_table, without = bare(NAME), bare(NAME, position_bias=False)
    assert with_table.no_weight_decay() == {"core.table"}
    assert without.no_weight_decay() == set()
    without.load_state_dict(with_table.state_dict(), strict=False)
    x = image(9, 8)
    assert_differs(with_table(x), without(x), 1e-2, "y")
    with torch.no_grad():
        with_table.core.table.zero_()
    assert_close(with_table(x), without(x), 1e-14, "y")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"window": 0}, r"mixer\.window=0 must be an integer >= 1 and <= 128"),
        ({"dilation": 0}, r"mixer\.dilation=0 must be an integer >= 1"),
        ({"alternate": 1.5}, r"mixer\.alternate=1\.5 is not known: allowed are True, False"),
        ({"position_bias": "no"}, r"mixer\.position_bias='no' is not known"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create(NAME, 16, **params)
    assert "\n" not in str(caught.value)
