import math

import pytest
import torch
import torch.nn.functional as F

import operators
from operators import InputError
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.linear.plain import assert_is, bare, image

NAME, WIDTH = "focal", 6


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def plain(mixer, x):
    core, (height, width) = mixer.core, x.shape[1:3]
    maps = x @ core.maps.weight.T + core.maps.bias
    q, gates = maps[..., :WIDTH], maps[..., WIDTH:]
    context, total = x, 0
    for level, conv in enumerate(core.convs):
        side = conv.weight.shape[-1]
        padded, context = F.pad(context, (0, 0, *[side // 2] * 4)), 0
        for i in range(side):
            for j in range(side):
                context = context + conv.weight[:, 0, i, j] * padded[:, i : i + height, j : j + width]
        context = gelu(context)
        total = total + gates[..., level : level + 1] * context
    total = total + gates[..., -1:] * gelu(context.sum((1, 2), keepdim=True) / (height * width))
    return q * (total @ core.modulator.weight.T + core.modulator.bias)


@pytest.mark.parametrize("params", [{}, {"levels": 1, "kernel": 1}, {"levels": 2, "kernel": 5}], ids=str)
@pytest.mark.parametrize("grid", [(5, 7), (1, 2)], ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    assert_is(bare(NAME, WIDTH, **params), image(*grid, width=WIDTH), plain)


def test_without_its_global_gate_it_reaches_no_further_than_its_windows():
    """Their radii add up: 1 + 2 for sides 3 and 5."""
    mixer, x = bare(NAME, WIDTH, levels=2), image(9, 9, width=WIDTH)
    changed = x.clone()
    changed[:, 0, 0] += 1
    assert_differs(mixer(changed)[:, 4:, 4:], mixer(x)[:, 4:, 4:], 1e-6, "y far away")
    with torch.no_grad():
        mixer.core.maps.weight[-1] = 0
        mixer.core.maps.bias[-1] = 0
    difference = (mixer(changed) - mixer(x)).abs().sum((0, -1))
    assert difference[4:].max() == 0
    assert difference[:, 4:].max() == 0
    assert difference[3, 3] > 0


def test_of_single_taps_only_the_mean_carries_anything_between_tokens():
    """Then what a token learns of another does not depend on where that one is."""
    mixer, x = bare(NAME, WIDTH), image(5, 7, width=WIDTH)
    with torch.no_grad():
        for conv in mixer.core.convs:
            centre = conv.weight[:, :, conv.weight.shape[2] // 2, conv.weight.shape[3] // 2].clone()
            conv.weight.zero_()
            conv.weight[:, :, conv.weight.shape[2] // 2, conv.weight.shape[3] // 2] = centre
    swapped = x.clone()
    swapped[:, 0, 1], swapped[:, 4, 6] = x[:, 4, 6], x[:, 0, 1]
    assert_close(mixer(swapped)[:, 1:4], mixer(x)[:, 1:4], 1e-13, "y of the other tokens")


def test_inspect_shows_gates_and_filters():
    mixer, x = bare(NAME, WIDTH, levels=2), image(5, 7, width=WIDTH)
    shown = mixer.inspect(x)
    assert {name: tuple(tensor.shape) for name, tensor in shown.items()} == {
        "gates": (2, 3, 5, 7),
        "kernels_3": (6, 3, 3),
        "kernels_5": (6, 5, 5),
    }


def test_published_mixer_has_as_many_parameters_as_the_released_module():
    """There: a map C -> 2 C + L + 1, one C -> C for the modulator and one out, all with bias, and the filters."""
    cost = operators.create(NAME, 64, shell="published").cost(7, 7)
    assert cost.parameters == 64 * (4 * 64 + 4) + 4 * 64 + 4 + 64 * (9 + 25 + 49)
    assert cost.mixing_macs == 49 * 64 * (9 + 25 + 49)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"levels": 0}, r"mixer\.levels=0 must be an integer >= 1"),
        ({"kernel": 4}, r"mixer\.kernel=4 must be odd, so that a window has a centre: 3 or 5"),
        ({"window": 3}, r"mixer focal has no 'window': allowed are kernel, levels"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create(NAME, WIDTH, **params)
    assert "\n" not in str(caught.value)
