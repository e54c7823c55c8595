"""Pictures against mathematics: kernels, filters, windows, propagators and what a scan may see."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import operators
from operators import BARE, InputError, Mixer
from operators.pictures import impulse_response, receptive_field, rotated, rotation_error, spectrum
from operators.scan import orders
from operators.testing.checks import assert_close, assert_differs
from tests.mixers import every_mixer

GRID = (7, 10)
CENTRE = (3, 5)
WIDTH = 4


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    """Mixers without parameters are shown in torch's default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def bare(name: str, grid: tuple[int, int] = GRID, **params: object) -> Mixer:
    return operators.create(name, WIDTH, grid=grid, shell=BARE, **params)


def delta(grid: tuple[int, int] = GRID, at: tuple[int, int] = CENTRE) -> Tensor:
    field = torch.zeros(grid)
    field[at] = 1
    return field


def window(kernel: Tensor, at: tuple[int, int] = CENTRE) -> Tensor:
    """A square kernel about a token of an empty grid."""
    field = torch.zeros(GRID)
    reach = kernel.shape[-1] // 2
    field[at[0] - reach : at[0] + reach + 1, at[1] - reach : at[1] + reach + 1] = kernel
    return field


@pytest.mark.parametrize("at", [CENTRE, (0, 9)])
def test_identity_is_a_delta(at: tuple[int, int]) -> None:
    mixer = bare("identity")
    assert_close(impulse_response(mixer, GRID, at=at), delta(at=at)[..., None].expand(*GRID, WIDTH), 0, "response")
    assert_close(receptive_field(mixer, GRID, at=at), delta(at=at), 0, "receptive field")
    assert_close(spectrum(mixer, GRID).abs(), torch.ones(*GRID, WIDTH), 1e-12, "gain")


def test_pool_is_its_window() -> None:
    mixer = bare("pool", size=3)
    kernel = mixer.inspect(torch.zeros(1, *GRID, WIDTH))["kernel"]
    assert_close(impulse_response(mixer, GRID)[..., 0], window(kernel), 1e-12, "response")
    assert_close(receptive_field(mixer, GRID), window(kernel**2), 1e-12, "receptive field")


def test_conv_is_its_filter() -> None:
    mixer = bare("conv", kernel=5)
    torch.nn.init.normal_(mixer.core.conv.bias)  # an affine mixer: the bias is no part of the response
    filters = mixer.core.conv.weight[:, 0].detach()
    response = impulse_response(mixer, GRID)
    for channel in range(WIDTH):
        # The output at r reads the filter at (centre - r): convolutions of networks are correlations.
        assert_close(response[..., channel], window(filters[channel].flip(0, 1)), 1e-12, f"channel {channel}")
    assert_close(receptive_field(mixer, GRID), window(filters.square().mean(0)), 1e-12, "receptive field")


def test_one_channel_alone() -> None:
    mixer = bare("conv")
    response = impulse_response(mixer, GRID, channel=2)
    assert response[..., [0, 1, 3]].count_nonzero() == 0
    assert_close(response[..., 2], impulse_response(mixer, GRID)[..., 2], 1e-12, "channel 2")


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
def test_pde_is_its_kernel(boundary: str) -> None:
    mixer = bare("pde_ssm", boundary=boundary)
    kernel = mixer.inspect(torch.zeros(1, *GRID, WIDTH))["kernel"][0]
    assert_close(impulse_response(mixer, GRID), kernel.movedim(0, -1), 1e-12, "response")


def test_pde_spectrum_is_the_propagator() -> None:
    """G(k) = D + sum over states of w exp(−kᵀKk − i v·k + r), on an odd grid: no Nyquist wave number."""
    grid = (7, 9)
    mixer = bare("pde_ssm", grid)
    shown = mixer.inspect(torch.zeros(1, *grid, WIDTH))
    pixels = math.sqrt(grid[0] * grid[1])  # the image has area 1
    ky, kx = (2 * math.pi * torch.fft.fftfreq(side) for side in grid)
    ky, kx = ky[:, None, None, None], kx[:, None, None]
    kyy, kxx = (shown["diffusion"] * pixels**2).unbind(-1)
    vy, vx = (shown["velocity"] * pixels).unbind(-1)
    exponent = -(kyy * ky**2 + kxx * kx**2) - 1j * (vy * ky + vx * kx) + shown["reaction"][..., 0]
    expected = mixer.core.skip + (mixer.core.readout * exponent.exp()).sum(-1)
    assert_close(torch.view_as_real(spectrum(mixer, grid)), torch.view_as_real(expected), 1e-10, "G")


def test_attention_response_tends_to_the_derivative() -> None:
    mixer = bare("attention", backend="reference")
    x = torch.randn(*GRID, WIDTH)
    pulse = torch.zeros_like(x)
    pulse[CENTRE] = 1
    _, expected = torch.autograd.functional.jvp(lambda tokens: mixer(tokens[None])[0], x, pulse)
    response = impulse_response(mixer, GRID, background=x, size=1e-5)
    assert_close(response, expected, 1e-8, "response")
    assert_differs(impulse_response(mixer, GRID, background=x, size=3.0), expected, 1e-3, "response to a large pulse")


def test_receptive_field_is_the_squared_matrix_row() -> None:
    """A mixer that is linear and keeps channels apart needs one sample: its field is the squared row of its matrix."""
    mixer = bare("random")
    row = mixer.core.matrix[CENTRE[0] * GRID[1] + CENTRE[1]].view(GRID)
    assert_close(receptive_field(mixer, GRID, samples=1), row.square(), 1e-12, "receptive field")


@pytest.mark.parametrize("order", ["row", "col_r", "hilbert"])
def test_a_scan_sees_the_past_of_its_order(order: str) -> None:
    mixer = bare("ss2d", orders=[order], backend="chunked")
    field = receptive_field(mixer, GRID, samples=2)
    step = orders.inverse(order, *GRID).view(GRID)
    later = step > step[CENTRE]
    assert field[later].count_nonzero() == 0
    assert (field[~later] > 0).all()


def test_the_receptive_field_leaves_the_global_generator() -> None:
    mixer = bare("conv")
    before = torch.get_rng_state()
    first = receptive_field(mixer, GRID)
    assert torch.equal(torch.get_rng_state(), before)
    assert_close(receptive_field(mixer, GRID), first, 0, "again")
    assert all(parameter.grad is None for parameter in mixer.parameters())


def test_conditioned_mixers_are_given_cond() -> None:
    mixer = operators.create("pde_ssm", 8, grid=GRID, cond_dim=3, shell=BARE, condition="cond")
    cond = torch.randn(3)
    assert_differs(
        impulse_response(mixer, GRID, cond=cond), impulse_response(mixer, GRID, cond=-cond), 1e-6, "response"
    )
    assert receptive_field(mixer, GRID, cond=cond, samples=2).shape == GRID
    assert spectrum(mixer, GRID, cond=cond).shape == (*GRID, 8)
    with pytest.raises(InputError, match="needs cond"):
        impulse_response(mixer, GRID)


@pytest.mark.parametrize("name", every_mixer())
@pytest.mark.parametrize("shell", [BARE, "common"], ids=["bare", "common"])
def test_every_mixer_has_pictures(name: str, shell: object) -> None:
    torch.set_default_dtype(torch.float32)
    mixer = operators.create(name, 8, grid=GRID, cond_dim=5, shell=shell)  # type: ignore[arg-type]
    cond = torch.zeros(5)
    background = torch.randn(*GRID, 8)
    response = impulse_response(mixer, GRID, background=background, cond=cond)
    field = receptive_field(mixer, GRID, samples=2, cond=cond)
    assert response.shape == (*GRID, 8)
    assert response.isfinite().all()
    assert response.count_nonzero() > 0
    assert field.shape == GRID
    assert field.isfinite().all()
    assert field[CENTRE] > 0
    equivariant = mixer.card.linear and mixer.card.translation_equivariant is not None
    if equivariant and shell is BARE:
        assert spectrum(mixer, GRID, cond=cond).shape == (*GRID, 8)
    else:
        with pytest.raises(InputError, match="has no spectrum"):
            spectrum(mixer, GRID, cond=cond)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"at": (7, 0)}, "outside the grid"),
        ({"at": (0, -1)}, "outside the grid"),
        ({"channel": 4}, "allowed are 0 to 3"),
        ({"size": 0.0}, "must be positive"),
        ({"background": torch.zeros(7, 10)}, "must have the shape"),
    ],
)
def test_refusals(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        impulse_response(bare("identity"), GRID, **arguments)  # type: ignore[arg-type]


def test_no_samples_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        receptive_field(bare("identity"), GRID, samples=0)


def smooth(side: int) -> Tensor:
    """Random waves of 1 and 2 periods across the grid, (3, side, side, WIDTH)."""
    along = 2 * math.pi * torch.arange(side) / side
    waves = torch.stack([torch.ones(side), along.cos(), along.sin(), (2 * along).cos(), (2 * along).sin()])
    factors = torch.randn(3, 5, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    return torch.einsum("bijc,ih,jw->bhwc", factors, waves, waves)


def test_rotation_of_tokens() -> None:
    x = smooth(24)
    assert_close(rotated(x, 90), x.transpose(1, 2).flip(1), 0, "90 degrees")
    assert_close(rotated(rotated(x, -90), 450), x, 0, "back")
    corner = delta((5, 5), (0, 4))[None, ..., None]
    assert_close(rotated(corner, 90), delta((5, 5), (0, 0))[None, ..., None], 0, "a corner")
    near = delta((5, 5), (2, 4))[None, ..., None]
    assert rotated(near, 45)[0, ..., 0].argmax() == 1 * 5 + 3  # up and to the left: counter-clockwise
    centre = slice(6, 18)
    twice = rotated(rotated(x, 45), 45)[:, centre, centre]
    assert_close(twice, rotated(x, 90)[:, centre, centre], 0.05, "twice 45 degrees")


def test_mixers_without_axes_are_equivariant_and_others_are_not() -> None:
    x = smooth(16)
    for name in ("identity", "attention", "pool"):
        assert rotation_error(bare(name, (16, 16)), x, 90) < 1e-12
    scan = bare("zigma", (16, 16), order="row", backend="chunked")
    assert rotation_error(scan, x, 90) > 0.1
    assert rotation_error(scan, x, 45) > 0.1
    isotropic = bare("pde_ssm", (16, 16), terms=["diffusion"], tensor="isotropic")
    assert rotation_error(isotropic, x, -90) < 1e-12
    moving = bare("pde_ssm", (16, 16), terms=["convection", "diffusion"])
    assert rotation_error(moving, x, 90) > 0.1
    assert rotation_error(bare("identity", (16, 16)), x, 30) < 1e-12


def test_rotation_error_is_that_of_its_formula() -> None:
    mixer, x = bare("conv", (9, 9)), torch.randn(2, 9, 9, WIDTH)
    with torch.no_grad():
        turned = mixer(x).rot90(1, (1, 2))
        error = (mixer(x.rot90(1, (1, 2))) - turned).norm() / turned.norm()
    assert rotation_error(mixer, x, 90) == pytest.approx(float(error))
    with pytest.raises(InputError, match=r"only square grids"):
        rotation_error(mixer, torch.randn(2, 9, 8, WIDTH), 90)
