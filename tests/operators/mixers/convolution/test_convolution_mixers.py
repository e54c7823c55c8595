"""Mixers around one depthwise convolution, against their definitions by loops over taps."""

import math

import pytest
import torch
import torch.nn.functional as F

import operators
from operators import InputError
from operators.testing.cases import run_with_gradients
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.drawn import image, make, set_to

WIDTH = 6
MIXERS = ("sepconv", "gated_cnn", "dico")
GRIDS = [(5, 7), (8, 3), (1, 2)]


def correlated(field, conv):
    """Each channel of a field (B, H, W, D) with its filter, tap by tap, zeros beyond the border."""
    height, width = field.shape[1:3]
    side = conv.weight.shape[-1]
    padded, total = F.pad(field, (0, 0, *[side // 2] * 4)), 0
    for i in range(side):
        for j in range(side):
            total = total + conv.weight[:, 0, i, j] * padded[:, i : i + height, j : j + width]
    return total if conv.bias is None else total + conv.bias


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def sepconv(core, u):
    positive = torch.where(u > 0, u, torch.zeros_like(u))
    return correlated(core.scale * positive * positive + core.shift, core.conv)


def gated_cnn(core, u):
    """Two or three of six channels, by default the last two (three eighths, rounded)."""
    kept = u.shape[-1] - len(core.conv.weight)
    return torch.cat([u[..., :kept], correlated(u[..., kept:], core.conv)], -1)


def dico(core, u):
    v = gelu(correlated(u, core.conv))
    mean = v.sum((1, 2)) / (v.shape[1] * v.shape[2])
    gate = 1 / (1 + (-(mean @ core.attention.weight.T + core.attention.bias)).exp())
    return v * gate[:, None, None]


PLAIN = {"sepconv": sepconv, "gated_cnn": gated_cnn, "dico": dico}
CASES = [
    *((name, {}) for name in MIXERS),
    ("sepconv", {"kernel": 3}),
    ("gated_cnn", {"kernel": 5, "partial_ratio": 0.5}),
    ("dico", {"kernel": 1}),
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("name", "params"), CASES, ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(name, params, grid):
    mixer, x = make(name, WIDTH, **params), image(*grid)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: PLAIN[name](mixer.core, x))
    assert_close(y, expected, 1e-12, "y")
    for parameter, gradient in gradients.items():
        assert_close(gradient, wanted[parameter], 1e-12, f"gradient of {parameter}")


def delta(mixer):
    """The mixer with filters that pass the centre of their window."""
    middle = mixer.core.conv.weight.shape[-1] // 2
    set_to(0.0, mixer.core.conv.weight)
    set_to(1.0, mixer.core.conv.weight[:, :, middle, middle])
    return mixer


def changed_by_one_token(mixer, grid):
    """Which tokens of an image notice that the one in its first row and column has changed, (H, W)."""
    x = image(*grid)
    other = x.clone()
    other[:, 0, 0] += 1
    return (mixer(other) - mixer(x)).abs().amax((0, -1))


@pytest.mark.parametrize("name", ["sepconv", "gated_cnn"])
@pytest.mark.parametrize("shell", ["published", "common"])
def test_with_a_delta_tokens_do_not_meet_in_any_shell(name, shell):
    mixer = make(name, 8, shell=shell)
    x = image(5, 7, width=8)
    other = x.clone()
    other[:, 0, 0] += 1

    def reached():
        return (mixer(other) - mixer(x)).abs().amax((0, -1))

    assert reached()[1, 1] > 1e-3
    delta(mixer)
    assert reached()[0, 0] > 1e-3
    assert reached().flatten()[1:].max() == 0


@pytest.mark.parametrize(("name", "reach"), [("sepconv", 3), ("gated_cnn", 3), ("dico", 1)])
def test_the_kernel_is_all_that_they_reach(name, reach):
    mixer = make(name, WIDTH)
    if name == "dico":  # a constant gate
        set_to(0.0, mixer.core.attention.weight)
    moved = changed_by_one_token(mixer, (9, 8)) > 1e-12
    assert moved[: reach + 1, : reach + 1].all()
    assert moved.sum() == (reach + 1) ** 2


def test_of_single_taps_dico_tells_tokens_only_the_mean():
    """Then what a token learns of others does not depend on where they are."""
    mixer, x = make("dico", WIDTH, kernel=1), image(5, 7)
    swapped = x.clone()
    swapped[:, 0, 1], swapped[:, 4, 6] = x[:, 4, 6], x[:, 0, 1]
    assert_close(mixer(swapped)[:, 1:4], mixer(x)[:, 1:4], 1e-13, "other tokens after a swap")
    assert_differs(mixer(torch.cat([x[:, :1] + 1, x[:, 1:]], 1))[:, 1:], mixer(x)[:, 1:], 1e-3, "after a change")


def test_gates_of_dico_lie_between_zero_and_one_and_start_near_one_half():
    mixer, x = operators.create("dico", 64, shell="published"), image(5, 7, width=64).float()
    gate = mixer.inspect(x)["gate"]
    assert gate.shape == (2, 64)
    assert 0.45 < gate.min() < gate.max() < 0.55
    loud = make("dico", WIDTH).inspect(1e3 * image(5, 7))["gate"]
    assert 0 <= loud.min() < 0.01
    assert 0.99 < loud.max() <= 1


def test_channels_before_the_convolved_ones_pass_unchanged():
    for ratio, convolved in ((0.375, 2), (0.01, 1), (0.5, 3), (0.9, 5)):
        mixer, x = make("gated_cnn", WIDTH, partial_ratio=ratio), image(5, 7)
        y = mixer(x)
        assert mixer.inspect(x)["kernel"].shape == (convolved, 7, 7)
        assert torch.equal(y[..., :-convolved], x[..., :-convolved])
        assert_differs(y[..., -convolved:], x[..., -convolved:], 1e-2, "convolved channels")


@pytest.mark.parametrize("width", [48, 64, 128, 256, 384, 576, 768])
def test_published_gated_cnn_convolves_as_many_channels_as_the_model_has(width):
    """Also where 8 C / 3 is no whole number: 682 of the width 256, where the nearest would be 683."""
    mixer = operators.create("gated_cnn", width, shell="published")
    assert mixer.shell.width == int(8 / 3 * width) == 8 * width // 3
    assert len(mixer.core.conv.weight) == width


@pytest.mark.parametrize("shell", ["published", "common"])
def test_published_gate_of_gated_cnn_is_a_gelu(shell):
    mixer, x = make("gated_cnn", 12, shell=shell), image(5, 7, width=12)
    u, z = mixer.shell.enter(x)
    plain = (gated_cnn(mixer.core, u) * gelu(z)) @ mixer.shell.out_proj.weight.T
    if shell == "published":
        assert_close(mixer(x), plain + mixer.shell.out_proj.bias, 1e-13, "y")
    else:
        assert_differs(mixer(x), plain, 1e-2, "y")


def test_starts_of_the_authors():
    width = 512
    cores = {name: operators.create(name, width, shell=operators.BARE).core for name in MIXERS}
    for name in ("sepconv", "gated_cnn"):
        assert cores[name].conv.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert cores[name].conv.weight.abs().max() < 0.0456
    bound = math.sqrt(6 / (9 + 9 * width))  # Xavier's, of 9 numbers read and 9 · 512 written
    assert 0.98 * bound < cores["dico"].conv.weight.abs().max() <= bound
    assert not cores["dico"].conv.bias.any()
    assert not cores["dico"].attention.bias.any()
    assert not cores["gated_cnn"].conv.bias.any()
    assert cores["sepconv"].conv.bias is None
    assert cores["sepconv"].scale.tolist() == [1.0]
    assert cores["sepconv"].shift.tolist() == [0.0]


@pytest.mark.parametrize("name", MIXERS)
def test_videos_of_one_frame_are_images(name):
    """Of a filter of three axes, the middle slice."""
    film, still, x = make(name, WIDTH, axes=3), make(name, WIDTH), image(5, 7)
    weights = dict(film.core.state_dict())
    weights["conv.weight"] = weights["conv.weight"][:, :, weights["conv.weight"].shape[2] // 2]
    still.core.load_state_dict(weights)
    assert_close(film(x[:, None])[:, 0], still(x), 1e-12, "y")


def test_costs():
    costs = {name: operators.create(name, 16, shell=operators.BARE).cost(5, 7) for name in MIXERS}
    assert costs["sepconv"] == operators.Cost(mixing_macs=35 * 49 * 16, parameters=49 * 16 + 2)
    assert costs["gated_cnn"] == operators.Cost(mixing_macs=35 * 49 * 6, parameters=50 * 6)
    assert costs["dico"] == operators.Cost(
        mixing_macs=35 * 9 * 16 + 16 * 16, state_elements=16, parameters=10 * 16 + 17 * 16
    )


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("sepconv", {"kernel": 4}, r"mixer\.kernel=4 must be odd, so that a window has a centre: 3 or 5"),
        ("dico", {"kernel": 0}, r"mixer\.kernel=0 must be an integer >= 1"),
        ("gated_cnn", {"partial_ratio": 0}, r"mixer\.partial_ratio=0 must be above 0.* use mixer=identity"),
        ("gated_cnn", {"partial_ratio": 1.5}, r"mixer\.partial_ratio=1\.5 must be a number >= 0 and <= 1"),
        ("gated_cnn", {"partial": 0.5}, r"mixer gated_cnn has no 'partial': .*did you mean 'partial_ratio'\?"),
    ],
    ids=str,
)
def test_wrong_parameters_are_refused_in_one_line(name, params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create(name, WIDTH, **params)
    assert "\n" not in str(caught.value)
