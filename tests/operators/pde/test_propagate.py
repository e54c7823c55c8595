"""What the operator does to single modes, to shifts, to impulses and across resolutions."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.fft import dctn, dstn, idctn, idstn

from operators.pde import propagate
from operators.testing.checks import assert_close
from tests.operators.pde.cases import BOUNDARIES, FORCINGS, GRIDS, METHODS, TENSORS, coefficients, noise, run, spot
from tests.operators.pde.definition import extend

grids = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
boundaries = pytest.mark.parametrize("boundary", BOUNDARIES)


def test_one_mode_decays():
    y, x = np.mgrid[:8, :9]
    ky, kx = 2 * np.pi * 3 / 8, 2 * np.pi * 2 / 9
    field = np.sin(ky * y + kx * x)[None]
    decay = np.exp(-(ky**2 + kx**2) * 0.3 * 0.7)
    assert_close(run(field, diffusion=np.array([0.3]), time=0.7), decay * field, 1e-12, "decayed mode")


def test_one_mode_decays_under_the_tensor_moves_and_reacts():
    y, x = np.mgrid[:9, :10]
    k = 2 * np.pi * np.array([2 / 9, -3 / 10])
    tensor, velocity = np.array([[0.3, 0.1], [0.1, 0.2]]), np.array([0.4, -0.7])
    chosen = {"diffusion": tensor[None], "velocity": velocity[None], "reaction": np.array([-0.25])}
    factor = np.exp(1.3 * (-0.25 - k @ tensor @ k))
    expected = factor * np.cos(k[0] * (y - 1.3 * 0.4) + k[1] * (x + 1.3 * 0.7))
    assert_close(run(np.cos(k[0] * y + k[1] * x)[None], **chosen, time=1.3), expected[None], 1e-12, "mode")


def test_a_mode_on_the_anti_diagonal_feels_the_cross_term():
    y, x = np.mgrid[:6, :6]
    k = 2 * np.pi / 6
    tensor = np.array([[[0.2, 0.15], [0.15, 0.2]]])
    for sign, rate in [(1, 0.7), (-1, 0.1)]:
        field = np.cos(k * (y + sign * x))[None]
        assert_close(run(field, diffusion=tensor), np.exp(-rate * k**2) * field, 1e-12, f"mode along (1, {sign})")


@grids
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shift", [(1, 0), (0, -2), (3, 5), (-1, 4)])
def test_integer_shifts_are_exact_rolls(shift, method, grid):
    field = noise(2, 3, *grid)
    velocity = np.tile(np.array(shift, dtype=float) / 2, (3, 1))
    out = run(field, velocity=velocity, time=2.0, method=method)
    assert_close(out, np.roll(field, shift, (-2, -1)), 1e-12, f"shift by {shift}")


@grids
def test_integer_shifts_roll_the_reflection(grid):
    field = noise(1, *grid)
    for boundary in ("neumann", "dirichlet"):
        rolled = np.roll(extend(field, boundary), (2, -1), (-2, -1))[:, : grid[0], : grid[1]]
        out = run(field, velocity=np.array([[2.0, -1.0]]), boundary=boundary)
        assert_close(out, rolled, 1e-12, f"{boundary} shift")


@pytest.mark.parametrize("grid", [(5, 7), (6, 6), (4, 7)], ids=str)
def test_integer_shifts_leave_an_absorbing_plane_empty_behind(grid):
    field = noise(1, *grid)
    moved = np.pad(field, ((0, 0), (2, 0), (0, 1)))[:, : grid[0], 1:]
    out = run(field, velocity=np.array([[2.0, -1.0]]), boundary="absorbing")
    assert_close(out, moved, 1e-9, "absorbing shift")


@boundaries
@grids
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_terms_is_the_identity(dtype, grid, boundary):
    field = torch.as_tensor(noise(2, 3, *grid), dtype=dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    assert_close(propagate(field, boundary=boundary, time=1.7), field, tolerance, "no terms")
    out = propagate(field, boundary=boundary, time=1.7, forcing="constant")
    assert_close(out, 1.7 * field, tolerance, "no terms, constant forcing")


@boundaries
@pytest.mark.parametrize("time", [0, 0.0, torch.tensor(0.0, dtype=torch.float64)], ids=["int", "float", "tensor"])
def test_no_time_is_the_identity(time, boundary):
    field, chosen = noise(2, 4, 5), coefficients((4, 5), tensor="full")
    assert_close(run(field, **chosen, time=time, boundary=boundary), field, 1e-9, "time 0")
    out = run(field, **chosen, time=time, boundary=boundary, forcing="constant")
    assert np.abs(out).max() < 1e-12, "constant forcing has had no time to act"


@boundaries
def test_reaction_alone_is_pointwise(boundary):
    field, reaction = noise(2, 4, 5), np.array([-0.7, 0.4])
    gain = np.exp(1.5 * reaction)[:, None, None]
    assert_close(run(field, reaction=reaction, time=1.5, boundary=boundary), gain * field, 1e-9, "reaction")
    source = run(field, reaction=reaction, time=1.5, boundary=boundary, forcing="constant")
    assert_close(source, (gain - 1) / reaction[:, None, None] * field, 1e-9, "reaction under constant forcing")
    steady = run(field[:1], reaction=reaction[:1], boundary=boundary, forcing="steady")
    assert_close(steady, field[:1] / 0.7, 1e-9, "steady reaction")


@grids
@pytest.mark.parametrize("forcing", FORCINGS)
@pytest.mark.parametrize(
    ("boundary", "ahead", "back", "first"),
    [
        ("neumann", dctn, idctn, 0),
        ("dirichlet", dstn, idstn, 1),
    ],
)
def test_reflections_without_convection_are_cosine_and_sine_series(boundary, ahead, back, first, forcing, grid):
    field, spread = noise(2, *grid), np.array([[0.3, 0.1], [0.05, 0.6]])
    y, x = (np.pi * (np.arange(n) + first) / n for n in grid)
    rate = -(spread[:, 0, None, None] * y[:, None] ** 2 + spread[:, 1, None, None] * x**2) - 0.2
    gain = {"initial": np.exp(0.7 * rate), "constant": np.expm1(0.7 * rate) / rate, "steady": -1 / rate}[forcing]
    expected = back(gain * ahead(field, type=2, axes=(1, 2)), type=2, axes=(1, 2))
    chosen = {"diffusion": spread, "reaction": np.full(2, -0.2)}
    assert_close(run(field, **chosen, time=0.7, boundary=boundary, forcing=forcing), expected, 1e-11, boundary)


# Sources -----------------------------------------------------------------------------------------------------------


@boundaries
def test_constant_forcing_starts_as_time_times_the_source(boundary):
    field, chosen = noise(2, 5, 6), coefficients((5, 6), tensor="full")
    given = {**chosen, "boundary": boundary, "forcing": "constant"}
    errors = [np.abs(run(field, **given, time=t) / t - field).max() for t in (1e-3, 1e-4)]
    assert errors[1] < 2e-2
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)
    assert_close(run(field, **given, time=1e-9) / 1e-9, field, 1e-6, "vanishing time")


@boundaries
def test_constant_forcing_ends_in_the_steady_state(boundary):
    field, chosen = noise(2, 5, 6), coefficients((5, 6), tensor="diagonal")
    given = {**chosen, "boundary": boundary}
    steady = run(field, **given, forcing="steady")
    late = run(field, **given, forcing="constant", time=100.0)
    assert_close(late, steady, 1e-9, "late constant forcing")
    assert_close(run(field, **given, forcing="steady", time=0.3), steady, 1e-12, "steady at another time")


@grids
@boundaries
def test_constant_forcing_grows_by_free_motion(boundary, grid):
    """d/dτ τφ₁(τL) f = e^{τL} f on every mode of every boundary."""
    field, chosen = noise(2, *grid), coefficients(grid, tensor="full")
    given, h = {**chosen, "boundary": boundary}, 1e-4
    later, earlier = (run(field, **given, forcing="constant", time=0.8 + s) for s in (h, -h))
    assert_close((later - earlier) / (2 * h), run(field, **given, time=0.8), 1e-6, "rate")


def test_constant_forcing_solves_the_equation():
    """du/dτ = L u + f, with L u read off as the free motion's start; odd grid, so no mode is averaged."""
    field, chosen, h = noise(2, 5, 7), coefficients((5, 7), tensor="full"), 1e-4
    later, now, earlier = (run(field, **chosen, forcing="constant", time=0.8 + s) for s in (h, 0, -h))
    ahead, behind = run(now, **chosen, time=h), run(now, **{**chosen, **backwards(chosen)}, time=h)
    assert_close((later - earlier) / (2 * h), (ahead - behind) / (2 * h) + field, 1e-5, "du/dτ")


def backwards(chosen):
    return {name: -value for name, value in chosen.items()}


# Units -------------------------------------------------------------------------------------------------------------


def smooth(height, width):
    """Four Fourier modes below every Nyquist here, sampled where pixel 0 is the image's corner."""
    y, x = np.arange(height)[:, None] / height, np.arange(width) / width
    waves = [(0, 1, 0.5), (1, 0, 1.1), (1, 2, 0.3), (2, -1, 0.9)]
    return 0.4 + sum(np.cos(2 * np.pi * (p * y + q * x) + phase) for p, q, phase in waves)


@pytest.mark.parametrize("forcing", FORCINGS)
@pytest.mark.parametrize("grid", [(6, 6), (5, 7), (8, 6)])
def test_image_units_are_one_operator_at_two_resolutions(grid, forcing):
    chosen = coefficients(grid, tensor="full", units="image", channels=1)
    given = {**chosen, "units": "image", "forcing": forcing}
    coarse = run(smooth(*grid)[None], **given)
    fine = run(smooth(2 * grid[0], 2 * grid[1])[None], **given)
    assert_close(fine[:, ::2, ::2], coarse, 1e-11, "every second pixel")
    changed = np.abs(coarse - smooth(*grid)).max()
    assert changed > 0.1, "the operator must do something for this to mean anything"


@pytest.mark.parametrize("boundary", ["neumann", "dirichlet"])
@pytest.mark.parametrize("side", [6, 12, 24])
def test_image_units_on_a_bounded_image_at_three_resolutions(side, boundary):
    """A mode of the 1 : 1.5 image of area 1 decays at its physical rate."""
    height, width = side, side * 3 // 2
    tall, wide = np.sqrt(2 / 3), np.sqrt(3 / 2)
    y, x = (np.arange(height)[:, None] + 0.5) / height, (np.arange(width) + 0.5) / width
    wave = np.cos if boundary == "neumann" else np.sin
    field = (wave(2 * np.pi * y) * wave(np.pi * x))[None]
    rate = 0.01 * (2 * np.pi / tall) ** 2 + 0.03 * (np.pi / wide) ** 2
    out = run(field, diffusion=np.array([[0.01, 0.03]]), units="image", boundary=boundary)
    assert_close(out, np.exp(-rate) * field, 1e-12, "mode of the image")


def test_image_velocity_crosses_the_image_in_its_own_time():
    field = noise(1, 4, 9)
    velocity = np.array([[0.0, 1.5]])  # the image is 9/6 wide
    assert_close(run(field, velocity=velocity, units="image"), field, 1e-12, "once across")
    down = run(field, velocity=np.array([[1 / 6, 0.0]]), units="image")
    assert_close(down, np.roll(field, 1, 1), 1e-12, "one pixel down")


# The unbounded plane and positivity ---------------------------------------------------------------------------------


def test_absorbing_loses_what_leaves_and_periodic_does_not():
    field, chosen = spot(8, 8), {"diffusion": np.array([1.5]), "velocity": np.array([[0.0, 9.0]])}
    absorbed, wrapped = (run(field, **chosen, boundary=boundary) for boundary in ("absorbing", "periodic"))
    assert wrapped.sum() == pytest.approx(1)
    assert absorbed.sum() == pytest.approx(0.0, abs=0.02)
    for time in (2.0, 4.0, 8.0):
        far = run(field, **chosen, boundary="absorbing", time=time)
        assert np.abs(far).max() < 1e-6, f"something came back at {time}"


def test_absorbing_mass_only_falls():
    field, chosen = spot(7, 7), {"diffusion": np.array([1.0])}
    mass = [run(field, **chosen, boundary="absorbing", time=t).sum() for t in (1.5, 2.0, 4.0, 8.0)]
    assert mass[0] < 1
    assert all(after < before for before, after in pairwise(mass))


@pytest.mark.parametrize("tensor", TENSORS)
def test_absorbing_is_periodic_on_a_padded_grid(tensor):
    field = noise(2, 5, 6)
    chosen = coefficients((5, 6), tensor=tensor)
    chosen["diffusion"] = chosen["diffusion"] + (1.5 * np.eye(2) if tensor == "full" else 1.5)
    wide = np.pad(field, ((0, 0), (25, 25), (25, 25)))
    expected = run(wide, **chosen, time=1.5)[:, 25:30, 25:31]
    assert_close(run(field, **chosen, time=1.5, boundary="absorbing"), expected, 1e-6, "padded")


def resolved(grid, tensor):
    """Diffusion above 2 pixels²: exp(−K τ π²) < 3e-9, so that the lattice's band limit no longer shows."""
    spread = coefficients(grid, tensor=tensor, channels=1)["diffusion"]
    return {"diffusion": spread + (2 * np.eye(2) if tensor == "full" else 2)}


@pytest.mark.parametrize(
    ("boundary", "tensor"),
    [
        (boundary, tensor)
        for boundary in BOUNDARIES
        for tensor in TENSORS
        if (boundary, tensor) != ("dirichlet", "full")
    ],
)
def test_well_resolved_diffusion_is_positive(boundary, tensor):
    grid = (9, 12)
    chosen = resolved(grid, tensor)
    kernel = run(spot(*grid), **chosen, boundary=boundary)
    assert kernel.max() > 1e-3
    assert kernel.min() >= -1e-8
    field = noise(1, *grid)
    out = run(field, **chosen, boundary=boundary)
    low, high = (
        (min(field.min(), 0), max(field.max(), 0))
        if boundary in ("dirichlet", "absorbing")
        else (field.min(), field.max())
    )
    assert low - 1e-7 <= out.min()
    assert out.max() <= high + 1e-7


def test_dirichlet_with_a_full_tensor_is_not_positive():
    """Odd images of a tilted spot do not cancel it at the edge: there the extension defines the operator."""
    assert run(spot(9, 12), **resolved((9, 12), "full"), boundary="dirichlet").min() < -1e-5


def test_poorly_resolved_diffusion_rings():
    assert run(spot(9, 9), diffusion=np.array([0.1])).min() < -1e-3
