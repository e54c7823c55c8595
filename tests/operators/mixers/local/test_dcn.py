import math

import pytest
import torch
from torch.autograd import forward_ad

import operators
from operators import InputError
from operators.testing.cases import run_with_gradients
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.drawn import set_to
from tests.operators.mixers.linear.plain import assert_is, bare, image

NAME = "dcn"
CASES = [
    ((2, 4), {}),
    ((2, 1), {"centre": True, "kernel": 5, "conv": 3}),
    ((3, 1), {"variant": "v4", "dilation": 2, "offset_scale": 0.5}),
    ((1, 3), {"variant": "v4", "conv": 3}),
    ((2, 3), {"variant": "flow_dcn", "reach": 2.0}),
]


def sample(tokens, row, column):
    """Bilinear between the tokens (H, W, e) around a point, zero beyond the border: tents around each token."""
    height, width, _ = tokens.shape
    near_row = (1 - (row - torch.arange(height)).abs()).clamp(min=0)
    near_column = (1 - (column - torch.arange(width)).abs()).clamp(min=0)
    return torch.einsum("i,j,ije->e", near_row, near_column, tokens)


def plain(mixer, x):
    core, (batch, height, width, channels) = mixer.core, x.shape
    groups, k = core.groups, core.kernel
    features = x
    if core.conv is not None:
        features = torch.nn.functional.conv2d(
            x.movedim(-1, 1),
            core.conv.weight,
            core.conv.bias,
            padding=core.conv.weight.shape[-1] // 2,
            groups=channels,
        ).movedim(1, -1)
    if core.variant == "v3":
        centred = features - features.mean(-1, keepdim=True)
        normal = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        features = normal * core.norm.weight + core.norm.bias
        features = features * (1 + torch.erf(features / math.sqrt(2))) / 2
    offsets = (features @ core.offsets.weight.T + core.offsets.bias).view(batch, height, width, groups, k * k, 2)
    weights = (features @ core.weights.weight.T + core.weights.bias).view(batch, height, width, groups, k * k)
    y = []
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                for g in range(groups):
                    part = x[b, :, :, g * (channels // groups) : (g + 1) * (channels // groups)]
                    shares, total = weights[b, i, j, g], 0
                    if core.variant == "v3":
                        shares = shares.exp() / shares.exp().sum()
                    for n in range(k * k):
                        tap = [n // k - k // 2, n % k - k // 2]
                        if core.variant == "flow_dcn":
                            scale = features[b, i, j] @ core.scales.weight[g * k * k + n] + core.scale[g]
                            scale = core.reach / (1 + (-scale).exp())
                            tap = [each / (k // 2) for each in tap]
                        else:
                            scale = core.offset_scale
                            tap = [each * core.dilation for each in tap]
                        down, right = ((tap[axis] + offsets[b, i, j, g, n, axis]) * scale for axis in (0, 1))
                        total = total + shares[n] * sample(part, i + down, j + right)
                    if core.centre is not None:
                        own = 1 / (1 + (-(features[b, i, j] @ core.centre.weight[g] + core.centre.bias[g])).exp())
                        total = total * (1 - own) + part[i, j] * own
                    y.append(total)
    return torch.stack(y).view(x.shape)


@pytest.mark.parametrize(("grid", "params"), CASES, ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    assert_is(bare(NAME, 4, groups=2, **params), image(*grid, width=4, batch=1), plain)


@pytest.mark.parametrize(
    "params", [{"kernel": 5}, {"variant": "v4", "offset_scale": 3.0}, {"variant": "flow_dcn"}], ids=str
)
def test_backends_agree(params):
    fast, gathered = (bare(NAME, 16, groups=4, backend=name, **params) for name in ("grid_sample", "reference"))
    y, gradients = run_with_gradients(fast, image(7, 10))
    expected, expected_gradients = run_with_gradients(gathered, image(7, 10))
    assert_close(y, expected, 1e-12, "y")
    for name, gradient in gradients.items():
        assert_close(gradient, expected_gradients[name], 1e-11, f"gradient of {name}")


@pytest.mark.parametrize("grid", [(5, 7), (11, 13)], ids=str)
def test_backends_agree_where_points_are_tokens_and_derivatives_have_two_sides(grid):
    """As they start, in float32, on sides that no power of two is a multiple of."""
    torch.manual_seed(0)
    fast = operators.create(NAME, 16, groups=2)
    gathered = operators.create(NAME, 16, groups=2, backend="reference")
    gathered.load_state_dict(fast.state_dict())
    x = image(*grid).float()
    gradients, expected = run_with_gradients(fast, x)[1], run_with_gradients(gathered, x)[1]
    for name, gradient in gradients.items():
        assert_close(gradient, expected[name], 1e-5, f"gradient of {name}")


def with_offset(variant, down, right, tap):
    """A mixer whose points are all moved alike, and which reads one of them alone."""
    mixer = bare(NAME, 8, variant=variant, groups=2, scale=0)
    core = mixer.core
    set_to(0.0, *mixer.parameters())
    set_to(torch.tensor([down, right]).repeat(18), core.offsets.bias)
    alone = torch.full((9,), 0.0 if variant == "v4" else -1e9)
    alone[tap] = 1.0
    set_to(alone.repeat(2), core.weights.bias)
    return mixer


@pytest.mark.parametrize("variant", ["v3", "v4"])
def test_whole_offsets_are_a_shift_filled_with_zeros(variant):
    x = image(5, 7, width=8)
    moved = torch.zeros_like(x)
    moved[:, :-3, 1:] = x[:, 3:, :-1]
    assert_close(with_offset(variant, 3.0, -1.0, 4)(x), moved, 1e-13, "y")
    assert_close(with_offset(variant, 2.0, -2.0, 8)(x), moved, 1e-13, "y of the last point")


def test_half_offsets_are_means_that_fade_beyond_each_border():
    x = image(5, 7, width=8)
    for sign in (1, -1):
        half = with_offset("v4", 0.5 * sign, 0.0, 4)(x)
        beyond = torch.cat([x, torch.zeros_like(x[:, :1])], 1) if sign == 1 else torch.cat([0 * x[:, :1], x], 1)
        assert_close(half, (beyond[:, 1:] + beyond[:, :-1]) / 2, 1e-13, "y")
    far = with_offset("v4", 1e6, 0.0, 4)(x)
    assert far.abs().max() == 0


def test_v4_starts_at_zero_and_flow_dcn_with_groups_that_reach_further_and_further():
    x = image(7, 7).float()
    assert operators.create(NAME, 16, variant="v4", shell=operators.BARE)(x).abs().max() == 0
    points = operators.create(NAME, 16, variant="flow_dcn", groups=4, shell=operators.BARE).inspect(x)
    reach = points["down"].amax((0, 2, 3, 4))
    assert_close(reach, 6 * (torch.arange(1, 5) / 4 - 1e-4), 1e-6, "reach of groups")
    assert points["right"].shape == points["weights"].shape == (2, 4, 9, 7, 7)


def test_shares_of_v3_alone_sum_to_one():
    for variant in ("v3", "v4"):
        weights = bare(NAME, variant=variant).inspect(image(4, 4))["weights"].sum(2)
        (assert_close if variant == "v3" else assert_differs)(weights, torch.ones_like(weights), 1e-12, "sum of shares")


@pytest.mark.parametrize(
    ("params", "count"),
    [
        ({"variant": "v3"}, 62_424),  # DCNv3_pytorch(128, group=8)
        ({"variant": "v4"}, 60_888),  # DCNv4(128, group=8): its map needs no filling
        # MultiScaleDCN(128, groups=8, channels=16, kernels=9), without 18 numbers that are not trained
        ({"variant": "flow_dcn"}, 2 * 128 * 129 + 72 * (2 * 129 + 129 + 128) + 8),
    ],
    ids=str,
)
def test_published_layers_have_the_parameters_of_their_authors(params, count):
    assert operators.create(NAME, 128, shell="published", **params).cost(5, 9).parameters == count


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_sampling_refuses_forward_mode():
    mixer, x = bare(NAME, backend="grid_sample"), image(2, 3)
    with forward_ad.dual_level(), pytest.raises(InputError, match=r"mixer\.backend='grid_sample' has no forward-mode"):
        mixer(forward_ad.make_dual(x, x))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"variant": "v5"}, r"mixer\.variant='v5' is not known: allowed are v3, v4, flow_dcn; did you mean 'v"),
        ({"groups": 3}, r"mixer\.groups=3 must divide the width 16; nearest: 2 and 4"),
        ({"kernel": 4}, r"mixer\.kernel=4 must be odd, so that a window has a centre: 3 or 5"),
        ({"variant": "flow_dcn", "kernel": 1}, r"mixer\.kernel=1 must be an integer >= 3"),
        ({"variant": "v4", "centre": True}, r"mixer\.centre=True is of mixer\.variant=v3, not of v4"),
        ({"variant": "flow_dcn", "conv": 3}, r"mixer\.conv is of mixer\.variant=v3 and v4"),
        ({"offset_scale": 0}, r"mixer\.offset_scale=0\.0 must be a number >= 0\.001"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create(NAME, 16, **params)
    assert "\n" not in str(caught.value)
