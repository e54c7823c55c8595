import math

import pytest
import torch

import operators
from operators import InputError
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.linear.plain import assert_is, bare, by_image, image

NAME = "window"
CASES = [
    ((3, 5), {"window": 3}),
    ((5, 4), {"window": 3, "shift": 1}),
    ((5, 4), {"window": 3, "shift": 1, "padding": "masked", "bias": False}),
    ((2, 7), {"window": 3, "shift": 2, "padding": "masked", "position_bias": False}),
    ((3, 2), {}),
]


def one(mixer, tokens, grid):
    """Token by token, on the padded grid: of which window it is, at which place, and whom it sees there."""
    core = mixer.core
    sides = [min(core.window, length) for length in grid]
    padded = [side * math.ceil(length / side) for side, length in zip(sides, grid, strict=True)]
    shifts = [core.shift if length > core.window else 0 for length in grid]
    bias = 0 if core.qk.bias is None else core.qk.bias
    q, k = (tokens @ core.qk.weight.T + bias).chunk(2, dim=-1)
    of_padding = torch.zeros_like(tokens[0]), (0 * k[0] if core.qk.bias is None else bias[core.site.width :])

    def piece(place):
        """Which window, and which of its two pieces along either axis."""
        return [
            ((at - shift) % length // side, at < shift)
            for at, shift, length, side in zip(place, shifts, padded, sides, strict=True)
        ]

    def real(place):
        return place[0] < grid[0] and place[1] < grid[1]

    places = [(i, j) for i in range(padded[0]) for j in range(padded[1])]
    outputs = []
    for here in filter(real, places):
        seen = [there for there in places if piece(there) == piece(here)]
        if core.padding == "masked":
            seen = list(filter(real, seen))
        heads = []
        for h in range(core.heads):
            part = slice(h * core.head_width, (h + 1) * core.head_width)
            values, weights = [], []
            for there in seen:
                number = there[0] * grid[1] + there[1]
                value, key = (tokens[number], k[number]) if real(there) else of_padding
                score = q[here[0] * grid[1] + here[1]][part] @ key[part] / math.sqrt(core.head_width)
                if core.table is not None:
                    below, right = (b - a for a, b in zip(here, there, strict=True))
                    score = score + core.table[h, core.window - 1 + below, core.window - 1 + right]
                weights.append(score.exp())
                values.append(value[part])
            weights = torch.stack(weights)
            heads.append(weights @ torch.stack(values) / weights.sum())
        outputs.append(torch.cat(heads))
    return torch.stack(outputs)


@pytest.mark.parametrize(("grid", "params"), CASES, ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    assert_is(bare(NAME, 4, heads=2, **params), image(*grid, width=4), by_image(one))


@pytest.mark.parametrize("padding", ["attended", "masked"])
def test_the_map_of_inspect_gives_the_output(padding):
    mixer, x = bare(NAME, heads=2, window=4, shift=2, padding=padding), image(9, 6)
    weights = mixer.inspect(x)["map"]
    v = x.flatten(1, 2).unflatten(-1, (2, 8)).transpose(1, 2)
    assert_close(mixer(x), (weights @ v).transpose(1, 2).reshape(x.shape), 1e-13, "y")
    sums = weights.sum(-1)
    if padding == "masked":
        assert_close(sums, torch.ones_like(sums), 1e-13, "sums of rows")
    else:
        assert sums.min() < 0.9, "somebody attends to padding"
        inner = sums.unflatten(-1, (9, 6))[:, :, 2:6, 2:6]  # the windows that have none
        assert_close(inner, torch.ones_like(inner), 1e-13, "sums of rows")


def test_both_kinds_of_padding_are_the_same_where_there_is_none():
    x = image(8, 12)
    same = [bare(NAME, window=4, shift=2, padding=padding)(x) for padding in ("attended", "masked")]
    assert_close(*same, 1e-14, "y")
    other = [bare(NAME, window=5, shift=2, padding=padding)(x) for padding in ("attended", "masked")]
    assert_differs(*other, 1e-2, "y")


def test_windows_that_are_shifted_are_cut_into_pieces_at_the_border():
    """(H / w + 1)(W / w + 1) groups of tokens that see each other."""
    for shift, groups in ((0, 6), (1, 12)):
        seen = bare(NAME, window=4, shift=shift).inspect(image(8, 12, batch=1))["map"][0, 0] > 0
        assert len({tuple(row.tolist()) for row in seen}) == groups


def test_without_the_mask_a_shifted_layer_would_be_a_shift_around_another():
    """Away from the border it is."""
    x = image(12, 12)
    plain, shifted = bare(NAME, window=4), bare(NAME, window=4, shift=2)
    around = plain(x.roll((-2, -2), (1, 2))).roll((2, 2), (1, 2))
    assert_close(shifted(x)[:, 2:10, 2:10], around[:, 2:10, 2:10], 1e-13, "y")
    assert_differs(shifted(x), around, 1e-2, "y at the border")


def test_it_commutes_with_shifts_by_windows_alone():
    mixer, x = bare(NAME, window=4), image(8, 12)
    assert_close(mixer(x.roll((4, 8), (1, 2))), mixer(x).roll((4, 8), (1, 2)), 1e-13, "y of a shift by windows")
    assert_differs(mixer(x.roll(1, 1)), mixer(x).roll(1, 1), 1e-2, "y of another shift")


def test_blocks_of_a_trunk_alternate():
    import models

    spec, other = models.MixerSpec(NAME), models.MixerSpec("identity")
    images = {"image_size": (32, 32), "in_channels": 1, "num_classes": 2}

    def shifts(pattern, name="vit_nano", **shape):
        with torch.device("meta"):
            mixers = models.create(name, mixers=pattern, dim=16, **shape, **images).mixers
        return [mixer.core.shift for mixer in mixers if mixer.card.name == NAME]

    assert shifts(spec, depth=4) == [0, 3, 0, 3]
    assert shifts([spec, other], depth=6) == [0, 3, 0]  # among those with windows
    assert shifts(spec, "pyramid_nano", widths=[1, 2], depths=[3, 2]) == [0, 3, 0, 0, 3]  # anew in each stage
    assert shifts(models.MixerSpec(NAME, params={"shift": 2}), depth=2) == [2, 2]
    assert operators.create(NAME, 16).core.shift == 0


def test_costs_count_padding():
    core = operators.create(NAME, 32).core
    assert core.core_cost(14, 21).mixing_macs == 2 * 14 * 21 * 49 * 32
    assert core.core_cost(10, 8).mixing_macs == 2 * 14 * 14 * 49 * 32
    assert core.core_cost(3, 10).mixing_macs == 2 * 3 * 14 * 21 * 32


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"window": 0}, r"mixer\.window=0 must be an integer >= 1 and <= 128"),
        ({"window": 4, "shift": 4}, r"mixer\.shift=4 must be less than mixer\.window=4"),
        ({"shift": -1}, r"mixer\.shift=-1 must be an integer >= 0"),
        ({"padding": "mask"}, r"mixer\.padding='mask' is not known: .*; did you mean 'masked'"),
        ({"heads": 3}, r"mixer\.heads=3 must divide the width 16; nearest: 2 and 4"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create(NAME, 16, **params)
    assert "\n" not in str(caught.value)
