"""The mixer `pde_ssm` on videos (B, T, H, W, C): the equation of an image, with a third axis."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import operators
from operators import BARE, InputError
from operators.mixers.equations.coefficients import LEAST_STEADY_DECAY, MOST_DECAY
from operators.mixers.equations.options import TERMS
from operators.mixers.equations.pde_ssm import PdeSsm
from operators.pde import propagate
from operators.testing.checks import assert_close, assert_differs
from tests.pairwise import pairwise

GRID = (3, 5, 3)
OPTIONS: dict[str, list[Any]] = {
    "boundary": ["periodic", "neumann", ("dirichlet", "periodic", "neumann"), ("absorbing", "neumann", "periodic")],
    "tensor": ["isotropic", "diagonal", "full"],
    "forcing": ["initial", "constant", "steady"],
    "terms": [s for n in (1, 2, 3) for s in itertools.combinations(TERMS, n)],
    "condition": ["none", "input", "cond"],
    "units": ["image", "pixel"],
    "state": [1, 2],
    "order": [1, 2],
    "nonlinearity": ["none", "allen_cahn"],
}


def make(grid: tuple[int, ...] = GRID, dim: int = 2, seed: int = 0, **params: Any) -> operators.Mixer:
    torch.manual_seed(seed)
    mixer = operators.create("pde_ssm", dim, grid=grid, cond_dim=3, shell=BARE, groups=2, **params).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return mixer


def core(mixer: operators.Mixer) -> PdeSsm:
    assert isinstance(mixer.core, PdeSsm)
    return mixer.core


def plain(mixer: operators.Mixer, **numbers: Any) -> operators.Mixer:
    """The mixer with one state, which is its output, and raw coefficients (…) as given."""
    with torch.no_grad():
        core(mixer).readout.fill_(1)
        core(mixer).skip.fill_(0)
        for name, value in numbers.items():
            getattr(core(mixer), name).copy_(torch.tensor(value, dtype=torch.float64))
    return mixer


def derivative(length: int) -> Tensor:
    """Of the trigonometric interpolant of an odd number of samples, at the samples."""
    k = 2 * math.pi * torch.fft.fftfreq(length, dtype=torch.float64)
    spectrum = 1j * k[:, None] * torch.fft.fft(torch.eye(length, dtype=torch.float64), dim=0)
    return torch.fft.ifft(spectrum, dim=0).real.contiguous()


def generator(mixer: PdeSsm, channel: int, state: int, grid: tuple[int, int, int]) -> Tensor:
    """div(K grad) - v·grad + r as a matrix over all pixels, from raw numbers."""
    eyes = [torch.eye(length, dtype=torch.float64) for length in grid]
    along = []
    for axis, length in enumerate(grid):
        factors = [derivative(length) if other == axis else eyes[other] for other in range(3)]
        along.append(torch.kron(torch.kron(factors[0], factors[1]), factors[2]))
    side = math.sqrt(grid[1] * grid[2])
    scale = torch.tensor([grid[0], side, side], dtype=torch.float64)
    t, y, x = mixer.log_length[channel, state].exp().expand(3)
    zero = torch.zeros_like(t)
    b, d, e = mixer.shear[channel, state] if "shear" in mixer.raw_sizes else (zero, zero, zero)
    # Rows of frame, row and column; columns of row, column and frame.
    factor = torch.stack([torch.stack(row) for row in ([d * t, e * t, t], [y, zero, zero], [b * x, x, zero])])
    k = factor @ factor.T / 2
    v = mixer.velocity[channel, state]
    if "log_damping" in mixer.raw_sizes:
        ball = (v / (1 + v.square().sum()).sqrt())[[1, 2, 0]]
        v = mixer.log_damping[channel, state].exp() * factor @ ball / math.sqrt(2)
    least = LEAST_STEADY_DECAY if mixer.agreed.call.forcing == "steady" else 0.0
    r = -least - (MOST_DECAY - least) * mixer.reaction_logit[channel, state].sigmoid()
    total = r * torch.eye(math.prod(grid), dtype=torch.float64)
    for i, j in itertools.product(range(3), repeat=2):
        total = total + k[i, j] * scale[i] * scale[j] * along[i] @ along[j]
    for i in range(3):
        total = total - v[i] * scale[i] * along[i]
    return total


def solution(mixer: PdeSsm, channel: int, state: int, a: Tensor) -> Tensor:
    """What takes the field to the solution after one unit of time, by exponentials of matrices."""
    one = torch.eye(len(a), dtype=a.dtype)
    zero = torch.zeros_like(a)
    if mixer.agreed.call.order == 2:
        damping = mixer.log_damping[channel, state].exp()
        whole = torch.cat([torch.cat([zero, one], 1), torch.cat([a, -damping * one], 1)]).matrix_exp()
        return whole[: len(a), : len(a)] + mixer.initial_velocity[channel, state] * whole[: len(a), len(a) :]
    if mixer.agreed.call.forcing == "steady":
        return -torch.linalg.inv(a)
    if mixer.agreed.call.forcing == "constant":
        return torch.cat([torch.cat([a, one], 1), torch.cat([zero, zero], 1)]).matrix_exp()[: len(a), len(a) :]
    made: Tensor = a.matrix_exp()
    return made


def gradients(y: Tensor, x: Tensor, mixer: operators.Mixer) -> dict[str, Tensor]:
    named = dict(mixer.named_parameters())
    torch.manual_seed(7)
    made = torch.autograd.grad(y, [x, *named.values()], torch.randn(y.shape, dtype=y.dtype))
    return dict(zip(["input", *named], made, strict=True))


@pytest.mark.parametrize(
    "params",
    [
        {"tensor": "full"},
        {"tensor": "isotropic", "forcing": "constant"},
        {"forcing": "steady"},
        {"tensor": "full", "order": 2, "initial_velocity": "learned"},
    ],
    ids=str,
)
def test_equals_exponentials_of_dense_matrices_with_all_gradients(params: dict[str, Any]) -> None:
    mixer = make(state=2, **params)
    x = torch.randn(2, *GRID, 2, dtype=torch.float64, requires_grad=True)
    channels = []
    for channel in range(2):
        field = x[..., channel].flatten(1)
        mixed = core(mixer).skip[channel] * field
        for state in range(2):
            solved = solution(core(mixer), channel, state, generator(core(mixer), channel, state, GRID))
            mixed = mixed + core(mixer).readout[channel, state] * field @ solved.T
        channels.append(mixed.reshape(2, *GRID))
    expected, y = torch.stack(channels, -1), mixer(x)
    assert mixer.backend == "fft"
    assert_close(y, expected, 1e-10, "output")
    wanted = gradients(expected, x, mixer)
    for name, gradient in gradients(y, x, mixer).items():
        assert_close(gradient, wanted[name], 1e-9, f"gradient of {name}")


def meaningful(options: dict[str, Any]) -> bool:
    first = options["order"] == 1 and options["nonlinearity"] == "none"
    if not first and (options["forcing"] != "initial" or "diffusion" not in options["terms"]):
        return False
    if options["order"] == 2 and (options["nonlinearity"] != "none" or "absorbing" in options["boundary"]):
        return False
    if "absorbing" in options["boundary"] and (options["forcing"] != "initial" or options["tensor"] == "full"):
        return False
    if options["forcing"] == "steady" and "reaction" not in options["terms"]:
        return False
    return options["tensor"] != "full" or "diffusion" in options["terms"]


@pytest.mark.slow
@pytest.mark.parametrize("grid", [(2, 3, 4), (3, 1, 2)], ids=str)
@pytest.mark.parametrize("options", pairwise(OPTIONS, meaningful), ids=str)
def test_fft_equals_the_reference(options: dict[str, Any], grid: tuple[int, ...]) -> None:
    x, cond = torch.randn(2, *grid, 2, dtype=torch.float64, requires_grad=True), torch.randn(2, 3, dtype=torch.float64)
    results = {}
    for method in ("fft", "reference"):
        mixer = make(grid, method=method, **options)
        assert mixer.backend == ("pointwise" if options["terms"] == ("reaction",) else method)
        y = mixer(x, cond)
        results[method] = {"output": y.detach()} | gradients(y, x, mixer)
    for name, expected in results["reference"].items():
        assert_close(results["fft"][name], expected, 1e-9, f"{name} with {options}")


def of_an_image(name: str, value: Tensor, numbers: int) -> Tensor:
    """The numbers of a video's equation that an image's has: the last axes, but the first shear."""
    return value[..., :numbers] if name == "core.shear" else value[..., -numbers:]


@pytest.mark.parametrize(
    "params",
    [
        {"tensor": "full", "state": 2},
        {"boundary": "dirichlet", "forcing": "steady"},
        {"order": 2, "tensor": "full", "boundary": "neumann"},
        {"nonlinearity": "logistic", "steps": 2, "condition": "none"},
        {"tensor": "isotropic", "boundary": "absorbing"},
        {"units": "pixel", "tensor": "full", "forcing": "constant"},
    ],
    ids=str,
)
def test_a_video_of_one_frame_is_an_image(params: dict[str, Any]) -> None:
    """Of an image's boundary in its plane, and a closed one along the frame axis, where nothing can move."""
    plane = params.get("boundary", "periodic")
    video = make((1, 4, 5), **{**params, "boundary": ["neumann", plane, plane]})
    image = make((4, 5), seed=1, method="fft", **params)
    with torch.no_grad():
        if "order" in params:  # the length of w, which has all axes, keeps waves from growing
            core(video).velocity[..., 0] = 0
        state = dict(video.named_parameters())
        for name, number in image.named_parameters():
            number.copy_(of_an_image(name, state[name], number.shape[-1]))
    x = torch.randn(2, 4, 5, 2, dtype=torch.float64, requires_grad=True)
    y, expected = video(x[:, None])[:, 0], image(x)
    assert_close(y, expected, 1e-12, "output")
    made, wanted = gradients(y, x, video), gradients(expected, x, image)
    for name, gradient in made.items():
        part = of_an_image(name, gradient, wanted[name].shape[-1])
        assert_close(part, wanted[name], 1e-10, f"gradient of {name}")


@pytest.mark.parametrize(
    "boundary",
    ["periodic", "absorbing", ["neumann", "periodic", "dirichlet"], ["absorbing", "neumann", "periodic"]],
    ids=str,
)
def test_a_diagonal_tensor_gives_the_product_of_three_axes(boundary: str | list[str]) -> None:
    grid = (4, 3, 5)
    mixer = plain(make(grid, units="pixel", state=1, terms=["convection", "diffusion"], boundary=boundary))
    c = core(mixer).solve_coefficients(torch.zeros(1, *grid, 2, dtype=torch.float64), None)
    fields = [torch.randn(2, length, dtype=torch.float64) for length in grid]
    words = [boundary] * 3 if isinstance(boundary, str) else boundary
    side, alone = math.sqrt(15), []
    spreads, drifts = (c.ktt, c.kyy, c.kxx), (c.vt, c.vy, c.vx)
    for field, word, spread, drift, scale in zip(fields, words, spreads, drifts, (4, side, side), strict=True):
        assert spread is not None
        assert drift is not None
        k, v = (torch.cat([torch.zeros_like(n), n], 1) for n in (spread * scale**2, drift * scale))
        solved = propagate(field[:, None], diffusion=k, velocity=v, boundary=["periodic", word])
        alone.append(solved[:, 0])
    video, expected = (torch.einsum("ct,cy,cx->tyxc", *parts)[None] for parts in (fields, alone))
    assert_close(mixer(video), expected, 1e-10, "product of three lines")


@pytest.mark.parametrize("units", ["image", "pixel"])
def test_content_moves_by_whole_frames_and_pixels(units: str) -> None:
    """In a video's units of time and an image's units of length: two of five frames on, three of seven rows down."""
    mixer = plain(make((5, 7, 7), state=1, terms=["convection"], units=units), velocity=[2 / 5, 3 / 7, -1 / 7])
    x = torch.randn(2, 5, 7, 7, 2, dtype=torch.float64)
    assert_close(mixer(x), x.roll((2, 3, -1), (1, 2, 3)), 1e-12, "moved video")
    longer = torch.randn(1, 15, 7, 7, 2, dtype=torch.float64)
    frames = 6 if units == "image" else 2
    assert_close(mixer(longer), longer.roll((frames, 3, -1), (1, 2, 3)), 1e-12, "moved video of three times the length")


def test_a_wave_along_the_frames_is_two_that_run_apart() -> None:
    """d'Alembert: speed sqrt(K), here two frames of seven, without damping."""
    mixer = make((7, 2, 3), state=1, order=2, terms=["diffusion"])
    speed = math.log(math.sqrt(2) * 2 / 7)
    mixer = plain(mixer, log_length=[speed, -1.0, -1.0], log_damping=-60.0)
    x = torch.randn(1, 7, 1, 1, 2, dtype=torch.float64).expand(1, 7, 2, 3, 2)
    assert_close(mixer(x), (x.roll(2, 1) + x.roll(-2, 1)) / 2, 1e-10, "two waves")


@pytest.mark.parametrize(
    ("terms", "boundary"),
    [(["convection", "diffusion"], "periodic"), (["diffusion"], ["neumann", "periodic", "neumann"])],
)
def test_convection_and_diffusion_keep_the_mass(terms: list[str], boundary: Any) -> None:
    tensor = "full" if "convection" in terms else "diagonal"
    mixer = plain(make((4, 3, 6), state=1, terms=terms, tensor=tensor, boundary=boundary))
    x = torch.randn(2, 4, 3, 6, 2, dtype=torch.float64)
    assert_close(mixer(x).sum((1, 2, 3)), x.sum((1, 2, 3)), 1e-12, "mass")
    assert_differs(mixer(x), x, 0.05, "video")


def test_image_units_keep_the_operator_under_refinement() -> None:
    mixer = make((4, 8, 8), tensor="full")
    t, n = torch.arange(8, dtype=torch.float64) / 8, torch.arange(16, dtype=torch.float64) / 16
    phase = t[:, None, None] + n[:, None] + 2 * n
    wave = torch.cos(2 * math.pi * phase)[None, ..., None].repeat(1, 1, 1, 1, 2)
    assert_close(mixer(wave[:, ::2, ::2, ::2]), mixer(wave)[:, ::2, ::2, ::2], 1e-10, "sampled in time and space")
    assert_close(mixer(wave[:, ::2]), mixer(wave)[:, ::2], 1e-10, "sampled in time")


def test_what_is_learned_has_a_number_for_each_axis() -> None:
    """And an image's is what it always was."""
    shapes = {"readout": (2, 3), "skip": (2,), "velocity": (2, 3, 2), "reaction_logit": (2, 3, 1)}
    for grid, axes, shears in (((4, 5), 2, 1), ((3, 4, 5), 3, 3)):
        own = {"velocity": (2, 3, axes), "log_length": (2, 3, axes), "shear": (2, 3, shears)}
        made = make(grid, state=3, tensor="full").core.state_dict()
        assert {name: tuple(value.shape) for name, value in made.items()} == shapes | own
    assert make((3, 4, 5), tensor="isotropic").core.state_dict()["log_length"].shape == (2, 4, 1)
    start = operators.create("pde_ssm", 64, grid=(32, 8, 8)).core.state_dict()["log_length"].exp()
    assert start[..., 0].min() * 32 < 0.34, "shortest length along frames, in frames"
    assert start[..., 1:].min() * 8 < 0.34, "shortest length in the plane, in pixels"
    assert 0.45 < start.amax() <= 0.5001


@pytest.mark.parametrize(
    ("grid", "params", "message"),
    [
        (GRID, {"boundary": ["neumann", "periodic"]}, r"three of them: \[frame axis, row axis, column axis\]"),
        (GRID, {"boundary": ["neumann", "neumann"]}, "three of them"),
        (GRID, {"boundary": ["periodic"] * 4}, "three of them"),
        ((4, 5), {"boundary": ["neumann", "periodic", "periodic"]}, r"two of them: \[row axis, column axis\]"),
        (GRID, {"boundary": ["neumann", "periodic", "dirichle"]}, "did you mean 'dirichlet'"),
        (GRID, {"boundary": "absorbing", "tensor": "full"}, "needs, on videos, forcing='initial'"),
        (GRID, {"boundary": ["absorbing", "neumann", "periodic"], "forcing": "constant"}, "on videos"),
        (GRID, {"boundary": "absorbing", "order": 2}, "needs order=1"),
        *[
            (GRID, {"method": method}, f"{method} serves images alone, .* use pde.method=fft, reference or auto")
            for method in ("separable", "compiled", "compiled_fft")
        ],
    ],
    ids=str,
)
def test_refusals(grid: tuple[int, ...], params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make(grid, **params)
    assert "\n" not in str(caught.value)


def test_a_transform_serves_whatever_the_size_and_says_so() -> None:
    for grid in ((1, 1, 1), (2, 4, 4), (3, 7, 11)):
        assert make(grid).backend == "fft"
    assert operators.create("pde_ssm", 2, axes=3).backend == "fft"
    assert make(terms=[]).backend == "pointwise"
    assert make(method="reference").backend == "reference"


def test_inspect_shows_three_axes() -> None:
    shown = make(tensor="full", units="pixel").inspect(torch.zeros(1, *GRID, 2, dtype=torch.float64))
    assert shown["kernel"].shape == (1, 2, *GRID)
    assert shown["diffusion"].shape == (2, 4, 6)
    assert shown["velocity"].shape == (2, 4, 3)
    assert (shown["diffusion"][..., :3] > 0).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch deprecates
@pytest.mark.parametrize("grid", [(2, 3, 4), (3, 4)], ids=str)
def test_compiles_into_one_graph(grid: tuple[int, ...]) -> None:
    torch.compiler.reset()
    mixer = make(grid, method="fft", tensor="full")
    x = torch.randn(2, *grid, 2, dtype=torch.float64, requires_grad=True)
    compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")(x)
    plain_output = mixer(x)
    assert_close(compiled, plain_output, 1e-12, "output")
    expected = gradients(plain_output, x, mixer)
    for name, gradient in gradients(compiled, x, mixer).items():
        assert_close(gradient, expected[name], 1e-11, f"gradient of {name}")
    torch.compiler.reset()
