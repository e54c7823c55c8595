"""What the three mixers of Hyena's kind have in common: a long convolution between two gates, against loops."""

import math

import pytest
import torch

import operators
from operators import InputError
from operators.mixers.spectral.hyena_nd import HyenaNd
from operators.mixers.spectral.hyena_pixel import HyenaPixel
from operators.mixers.spectral.hyena_siren import HyenaSiren
from operators.testing.cases import noise, run_with_gradients
from operators.testing.checks import assert_close, assert_differs

WIDTH = 4
CASES = [
    ("hyena_nd", {}),
    ("hyena_nd", {"directions": 1, "separable": True, "conv": 3}),
    ("hyena_siren", {}),
    ("hyena_siren", {"window": "gaussian", "boundary": "periodic", "conv": 3}),
    ("hyena_pixel", {}),
    ("hyena_pixel", {"norm": False, "kernel": 3, "conv": 5}),
]


def make(name, *, seed=0, grid=None, shell=operators.BARE, kick=0.1, **params):
    torch.manual_seed(seed)
    mixer = operators.create(name, WIDTH, grid=grid, shell=shell, **params).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(kick * torch.randn_like(parameter))
    return mixer


def image(*grid, seed=1):
    return noise(2, *grid, WIDTH, dtype=torch.float64, seed=seed)


def hyena_nd_value(core, p, q, height, width):
    """K at an offset: the quadrants that hold it, each with its weight; in one of them tokens count from 0 to 1."""

    def features(n, length):
        t, phase = n / max(length - 1, 1), 1e-4 * 2 * math.pi * n / length
        return t, [t, math.cos(phase), -math.sin(phase)]

    (down, rows), (along, columns) = features(abs(p), height), features(abs(q), width)
    if core.row_filter is None:
        value = core.filter(torch.tensor(rows + columns, dtype=torch.float64))
    else:
        value = core.row_filter(torch.tensor(rows, dtype=torch.float64))
        value = value * core.filter(torch.tensor(columns, dtype=torch.float64))
    value = value * torch.exp(-core.decay * down) * torch.exp(-core.decay * along)
    if core.directions_weight is None:
        return value if p >= 0 and q >= 0 else torch.zeros_like(value)
    signs = ((1, 1), (-1, -1), (1, -1), (-1, 1))
    held = [w for w, (s, t) in zip(core.directions_weight, signs, strict=True) if p * s >= 0 and q * t >= 0]
    return sum(held) * value


def hyena_siren_value(core, p, q, height, width):
    """K at an offset, of which a periodic grid of n tokens has about n / 2 to either side, by the nominal side of 3."""
    periodic = core.boundary == "periodic"
    reaches = [(n + 1) // 2 if periodic else n for n in (height, width)]
    if abs(p) >= reaches[0] or abs(q) >= reaches[1]:
        return torch.zeros(WIDTH, dtype=torch.float64)
    step = 1 / ((3 + 1) // 2 - 1 if periodic else 3 - 1)
    hidden = place = torch.tensor([p * step, q * step], dtype=torch.float64)
    *inner, last = core.network.layers
    for layer in inner:
        hidden = torch.sin(layer.weight @ hidden + layer.bias)
    value = last.weight @ hidden + last.bias
    if core.sigma is not None:
        for distance, sigma in zip(place, core.sigma, strict=True):
            bounds = [1 / math.sqrt(-2 * math.log(v)) for v in (0.1, 0.95)]
            value = value * torch.exp(-((distance / sigma.clamp(bounds[0] * step, bounds[1])) ** 2) / 2)
    return value


def hyena_pixel_value(core, p, q, height, width):
    """K at an offset in tokens, from what is learned there; nothing beyond."""
    half = len(core.places) // 2
    if max(abs(p), abs(q)) > half:
        return torch.zeros(WIDTH, dtype=torch.float64)
    first, second, last = core.network.layers
    hidden = torch.sin(core.network.frequencies[0] * (first.weight @ core.places[half + p, half + q] + first.bias))
    hidden = torch.sin(core.network.frequencies[1] * (second.weight @ hidden + second.bias))
    return last.weight @ hidden * (torch.exp(-math.hypot(p, q) * core.decay.abs()) + core.shift)


def gates(core, u, a, b):
    """What is convolved, and the factor of what comes out."""
    if isinstance(core, HyenaSiren):
        z = u / u.square().sum(-1, keepdim=True).sqrt() * a / (1 + (-a).exp())
        return core.norm * z / (z.square().mean(-1, keepdim=True) + 1e-6).sqrt(), 1 / (1 + (-b).exp())
    z = u * a
    if isinstance(core, HyenaPixel) and core.scale is not None:
        z = z - z.mean(-1, keepdim=True)
        z = core.scale * z / (z.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return z, b


VALUES = {HyenaNd: hyena_nd_value, HyenaSiren: hyena_siren_value, HyenaPixel: hyena_pixel_value}


def definition(core, x):
    """Gates by token, the short convolution by tap, the long one by pairs of tokens."""
    height, width = x.shape[1:3]
    a, b = (x @ core.maps.weight.T + (0 if core.maps.bias is None else core.maps.bias)).chunk(2, -1)
    fields = torch.cat([x, a, b], -1)
    if core.conv is not None:
        fields = short(fields, core.conv)
    z, factor = gates(core, *fields.chunk(3, -1))
    value = VALUES[type(core)]
    kernel = torch.stack(
        [
            torch.stack([value(core, p, q, height, width) for q in range(1 - width, width)])
            for p in range(1 - height, height)
        ]
    )
    skip = core.skip_factor if isinstance(core, HyenaSiren) else core.s
    if isinstance(core, HyenaNd) and core.directions_weight is not None:
        skip = skip * core.directions_weight.sum(0)
    rows = []
    for i in range(height):
        for j in range(width):
            total = skip * z[:, i, j]
            for k in range(height):
                for m in range(width):
                    if core.boundary == "absorbing":
                        total = total + kernel[i - k + height - 1, j - m + width - 1] * z[:, k, m]
                    else:
                        total = total + round_the_grid(kernel, i - k, j - m, height, width) * z[:, k, m]
            rows.append(total)
    return torch.stack(rows, 1).view(x.shape) * factor


def round_the_grid(kernel, down, along, height, width):
    """The sum over all offsets of the kernel that are the same on a periodic grid."""
    total = torch.zeros_like(kernel[0, 0])
    for p in range(1 - height, height):
        for q in range(1 - width, width):
            if (p - down) % height == 0 and (q - along) % width == 0:
                total = total + kernel[p + height - 1, q + width - 1]
    return total


def short(fields, conv):
    height, width = fields.shape[1:3]
    half = conv.weight.shape[-1] // 2
    padded = torch.nn.functional.pad(fields, (0, 0, half, half, half, half))
    total = torch.zeros_like(fields) + (0 if conv.bias is None else conv.bias)
    for p in range(2 * half + 1):
        for q in range(2 * half + 1):
            total = total + conv.weight[:, 0, p, q] * padded[:, p : p + height, q : q + width]
    return total


@pytest.mark.parametrize("grid", [(3, 4), (2, 3)], ids=str)
@pytest.mark.parametrize(("name", "params"), CASES, ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(name, params, grid):
    mixer, x = make(name, grid=(3, 3), **params), image(*grid)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: definition(mixer.core, x))
    assert_close(y, expected, 1e-11, "y")
    for parameter, gradient in gradients.items():
        assert_close(gradient, wanted[parameter], 1e-9, f"gradient of {parameter}")


# ---------------------------------------------------------------- hyena_nd


def test_one_quadrant_reads_what_is_above_and_left():
    mixer, x = make("hyena_nd", directions=1), image(4, 5)
    changed = x.clone()
    changed[:, 2, 3] += 1
    moved = (mixer(changed) - mixer(x)).abs().sum((0, 3)) > 1e-9
    expected = torch.zeros(4, 5, dtype=torch.bool)
    expected[2:, 3:] = True
    assert torch.equal(moved, expected)


@pytest.mark.parametrize("separable", [False, True])
def test_four_directions_alike_commute_with_flips(separable):
    mixer, x = make("hyena_nd", separable=separable), image(4, 5)
    with torch.no_grad():
        mixer.core.directions_weight.fill_(0.7)
    for axes in ((1,), (2,), (1, 2)):
        assert_close(mixer(x.flip(axes)), mixer(x).flip(axes), 1e-11, f"flip of {axes}")
    with torch.no_grad():
        mixer.core.directions_weight[0] = -0.2
    assert_differs(mixer(x.flip(1)), mixer(x).flip(1), 1e-3, "flip with directions of their own")


def test_a_separable_filter_is_a_convolution_along_each_axis():
    mixer, grid = make("hyena_nd", directions=1, separable=True), (4, 5)
    quadrant = mixer.core.quadrant(*grid)
    for channel in quadrant.unbind(-1):
        assert torch.linalg.matrix_rank(channel) == 1
    assert torch.linalg.matrix_rank(make("hyena_nd", directions=1).core.quadrant(*grid)[..., 0]) > 1


def test_windows_fall_to_a_hundredth():
    core = make("hyena_nd", kick=0).core
    assert (-core.decay * torch.tensor([1.5, 0, 0, 0.3])).exp()[[0, -1]].tolist() == pytest.approx([0.01, 0.01])


# ---------------------------------------------------------------- hyena_siren


def test_widths_stay_between_their_bounds():
    core = make("hyena_siren", grid=(5, 5), window="gaussian", kick=0).core
    narrow, widest = (1 / math.sqrt(-2 * math.log(value)) for value in (0.1, 0.95))
    assert core.sigma[0, [0, -1]].tolist() == pytest.approx([narrow / 4, narrow])
    for outside, bound in ((1e-9, narrow / 4), (1e9, widest)):
        kernels = []
        for value in (outside, bound):
            torch.nn.init.constant_(core.sigma, value)
            kernels.append(core.kernel(5, 5))
        assert_close(*kernels, 1e-12, "kernel beyond a bound and at it")


def test_larger_and_smaller_grids_share_the_middle_of_the_kernel():
    core = make("hyena_siren", grid=(5, 6)).core
    whole = core.kernel(5, 6)
    assert_close(core.kernel(3, 4), whole[2:-2, 2:-2], 1e-12, "centre")
    assert_close(core.kernel(7, 8)[2:-2, 2:-2], whole, 1e-12, "centre of a larger one")


def test_without_a_border_shifts_commute():
    mixer, x = make("hyena_siren", boundary="periodic"), image(5, 6)
    assert_close(mixer(x.roll((1, 2), (1, 2))), mixer(x).roll((1, 2), (1, 2)), 1e-11, "output of a shift")
    zeros = make("hyena_siren")
    assert_differs(zeros(x.roll((1, 2), (1, 2))), zeros(x).roll((1, 2), (1, 2)), 1e-3, "output of a shift")


def test_the_readout_alone_of_a_network_is_decayed():
    decayed = {n for n, _ in make("hyena_siren", window="gaussian").named_parameters()}
    decayed -= make("hyena_siren", window="gaussian").no_weight_decay()
    assert decayed == {"core.maps.weight", "core.network.layers.3.weight"}
    for name in ("hyena_nd", "hyena_pixel"):
        mixer = make(name)
        rest = {n for n, _ in mixer.named_parameters()} - mixer.no_weight_decay()
        assert rest == {"core.maps.weight", "core.maps.bias"}, name


# ---------------------------------------------------------------- hyena_pixel


def test_of_a_large_filter_the_centre_serves_and_a_small_one_reaches_less_far():
    core = make("hyena_pixel", kernel=9).core
    whole = core.kernel(5, 5)
    assert whole.shape == (9, 9, WIDTH)
    assert_close(core.kernel(3, 4), whole[2:-2, 1:-1], 1e-13, "centre")
    wider = core.kernel(6, 7)
    assert_close(wider[1:-1, 2:-2], whole, 1e-13, "centre of a larger grid")
    assert wider[0].count_nonzero() == 0
    assert wider[:, :2].count_nonzero() == 0


def test_a_filter_of_all_offsets_is_global_and_a_smaller_one_is_not():
    for kernel, reached in ((9, 20), (7, 16)):
        mixer, x = make("hyena_pixel", kernel=kernel, norm=False), image(5, 4).requires_grad_()
        (gradient,) = torch.autograd.grad(mixer(x)[:, 0, 0].sum(), x)
        assert (gradient.abs().sum((0, 3)) > 1e-12).sum() == reached


def test_a_short_filter_shifts_with_the_image_away_from_the_border():
    mixer, x = make("hyena_pixel", kernel=3), image(7, 8)
    here, there = mixer(x)[:, 1:-2, 1:-3], mixer(x[:, 1:, 2:])[:, :-2, :-3]
    assert_close(here[:, 1:, 2:], there[:, 1:, 1:][:, : here.shape[1] - 1, : here.shape[2] - 2], 1e-11, "interior")


@pytest.mark.parametrize(("name", "conv"), [("hyena_nd", 3), ("hyena_siren", 3), ("hyena_pixel", 5)])
def test_the_short_convolution_belongs_to_the_published_shell(name, conv):
    published, common = (operators.create(name, 8, shell=shell).core for shell in ("published", "common"))
    assert published.conv.weight.shape == (24, 1, conv, conv)
    assert common.conv is None
    without = operators.create(name, 8, shell="published", conv=0).cost(5, 7)
    assert (
        operators.create(name, 8, shell="published").cost(5, 7).mixing_macs - without.mixing_macs == conv**2 * 24 * 35
    )


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("hyena_nd", {"directions": 2}, r"mixer\.directions=2 is not known: allowed are 1, 4"),
        ("hyena_nd", {"hidden": 0}, r"mixer\.hidden=0 must be an integer >= 1"),
        ("hyena_nd", {"conv": 4}, r"mixer\.conv=4 is not known: allowed are None, 0, 3, 5, 7"),
        ("hyena_nd", {"separable": 2}, r"mixer\.separable=2 is not known"),
        ("hyena_siren", {"window": "gausian"}, r"mixer\.window='gausian' is not known: .*did you mean 'gaussian'"),
        ("hyena_siren", {"boundary": "neumann"}, r"mixer\.boundary='neumann' is not known: allowed are absorbing, per"),
        ("hyena_pixel", {"kernel": 8}, r"mixer\.kernel=8 must be odd, so that a window has a centre: 7 or 9"),
        ("hyena_pixel", {"kernel": 100001}, r"mixer\.kernel=100001 must be an integer >= 1 and <= 1023"),
        ("hyena_pixel", {"features": 6}, r"mixer\.features=6 must be a multiple of 4: 4 or 8"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(name, params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create(name, 16, **params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["hyena_nd", "hyena_siren", "hyena_pixel"])
def test_what_is_kept_in_evaluation_follows_every_change(name):
    mixer = make(name, grid=(3, 4))
    x = noise(4, 3, 4, WIDTH, dtype=torch.float64)
    states = set(mixer.state_dict())
    with torch.no_grad():
        assert torch.equal(mixer(x), mixer(x)), "from what is kept"
        assert mixer.core._kept is not None
        for parameter in mixer.core.parameters():
            parameter.data.mul_(1.5)
            assert_close(mixer(x), torch.enable_grad()(mixer)(x).detach(), 1e-12, "output after the change")
        other = x.transpose(1, 2).contiguous()
        assert_close(mixer(other), torch.enable_grad()(mixer)(other).detach(), 1e-12, "output on another grid")
        assert mixer.core._kept.made[0].nbytes <= 2 * x.nbytes
        mixer(x[:1])
        assert mixer.core._kept is None
    with torch.inference_mode():
        mixer(x)
    assert_close(mixer.float()(x.float()).double(), mixer.double()(x).detach(), 1e-4, "output in float32")
    assert set(mixer.state_dict()) == states
