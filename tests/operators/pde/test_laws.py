"""Mass, semigroup, adjoint and symmetry: where each holds, and that it fails where it is not claimed.

             periodic                        neumann, dirichlet              absorbing
mass         always                          neumann, diagonal K, no v       no
semigroup    odd, or no Nyquist mode, or     diagonal K, no v                no: what left is gone
             v τ integer or absent and K diagonal
adjoint is   always                          diagonal K, no v                always
v → −v
"""

import numpy as np
import pytest

from operators.testing.checks import assert_close, assert_differs
from tests.operators.pde.cases import BOUNDARIES, FORCINGS, GRIDS, TENSORS, coefficients, noise, run

grids = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


def gain(reaction, time, forcing):
    """What the forcing makes of the mode k = 0."""
    return {
        "initial": np.exp(time * reaction),
        "constant": np.expm1(time * reaction) / reaction,
        "steady": -1 / reaction,
    }[forcing]


# Mass --------------------------------------------------------------------------------------------------------------


@grids
@pytest.mark.parametrize("forcing", FORCINGS)
def test_periodic_mass(forcing, grid):
    field, chosen = noise(2, *grid) + 1, coefficients(grid, tensor="full")
    mass = run(field, **chosen, time=1.4, forcing=forcing).sum((-2, -1))
    assert_close(mass, gain(chosen["reaction"], 1.4, forcing) * field.sum((-2, -1)), 1e-12, "mass")


@grids
@pytest.mark.parametrize("forcing", FORCINGS)
def test_neumann_mass(forcing, grid):
    field, chosen = noise(2, *grid) + 1, coefficients(grid, tensor="diagonal", convection=False)
    mass = run(field, **chosen, time=1.4, forcing=forcing, boundary="neumann").sum((-2, -1))
    assert_close(mass, gain(chosen["reaction"], 1.4, forcing) * field.sum((-2, -1)), 1e-12, "mass")


@pytest.mark.parametrize(
    ("boundary", "tensor", "convection"),
    [
        ("neumann", "diagonal", True),
        ("neumann", "full", False),
        ("dirichlet", "diagonal", False),
        ("absorbing", "diagonal", False),
    ],
)
def test_mass_is_not_kept_elsewhere(boundary, tensor, convection):
    field, chosen = noise(2, 5, 6) + 1, coefficients((5, 6), tensor=tensor, convection=convection, reaction=False)
    mass = run(field, **chosen, boundary=boundary).sum((-2, -1))
    assert_differs(mass, field.sum((-2, -1)), 1e-3, "mass")


# Semigroup ---------------------------------------------------------------------------------------------------------


def two_steps_and_one(field, chosen, boundary="periodic"):
    given = {**chosen, "boundary": boundary}
    return run(run(field, **given, time=0.6), **given, time=0.9), run(field, **given, time=1.5)


def without_nyquist(field):
    """The field with its Nyquist modes removed."""
    spectrum = np.fft.fft2(field)
    for axis in (-2, -1):
        n = field.shape[axis]
        if n % 2 == 0:
            np.moveaxis(spectrum, axis, 0)[n // 2] = 0
    return np.fft.ifft2(spectrum).real


@pytest.mark.parametrize("grid", [(5, 7), (5, 1), (1, 9)], ids=str)
@pytest.mark.parametrize("tensor", TENSORS)
def test_semigroup_on_odd_grids(tensor, grid):
    two, one = two_steps_and_one(noise(2, *grid), coefficients(grid, tensor=tensor))
    assert_close(two, one, 1e-12, "two steps")


@pytest.mark.parametrize("grid", [(6, 6), (4, 7), (1, 6)], ids=str)
@pytest.mark.parametrize("tensor", TENSORS)
def test_semigroup_on_band_limited_fields(tensor, grid):
    two, one = two_steps_and_one(without_nyquist(noise(2, *grid)), coefficients(grid, tensor=tensor))
    assert_close(two, one, 1e-12, "two steps")


@pytest.mark.parametrize("boundary", ["periodic", "neumann", "dirichlet"])
@pytest.mark.parametrize("tensor", ["isotropic", "diagonal"])
@grids
def test_semigroup_without_convection(grid, tensor, boundary):
    two, one = two_steps_and_one(noise(2, *grid), coefficients(grid, tensor=tensor, convection=False), boundary)
    assert_close(two, one, 1e-12, "two steps")


def test_semigroup_of_whole_shifts_on_even_grids():
    field, chosen = noise(2, 6, 4), coefficients((6, 4), tensor="diagonal")
    chosen["velocity"] = np.array([[1.0, -2.0], [3.0, 1.0]])
    two = run(run(field, **chosen, time=1.0), **chosen, time=2.0)
    assert_close(two, run(field, **chosen, time=3.0), 1e-12, "two steps")


@pytest.mark.parametrize(
    ("boundary", "tensor", "convection"),
    [
        ("periodic", "diagonal", True),
        ("periodic", "full", False),
        ("neumann", "diagonal", True),
        ("neumann", "full", False),
        ("dirichlet", "diagonal", True),
        ("dirichlet", "full", False),
        ("absorbing", "diagonal", False),
    ],
)
def test_semigroup_fails_elsewhere(boundary, tensor, convection):
    chosen = coefficients((6, 6), tensor=tensor, convection=convection)
    two, one = two_steps_and_one(noise(2, 6, 6), chosen, boundary)
    assert_differs(two, one, 1e-3, "two steps")


# Adjoint and energy --------------------------------------------------------------------------------------------------


def both_sides(grid, chosen, **given):
    """⟨P_v f, g⟩ and ⟨f, P₋ᵥ g⟩ for every channel."""
    f, g = noise(2, *grid, seed=1), noise(2, *grid, seed=2)
    turned = {**chosen, "velocity": -chosen["velocity"]} if "velocity" in chosen else chosen
    ahead = (run(f, **chosen, **given) * g).sum((-2, -1))
    return ahead, (f * run(g, **turned, **given)).sum((-2, -1))


@grids
@pytest.mark.parametrize("forcing", FORCINGS)
@pytest.mark.parametrize("boundary", ["periodic", "absorbing"])
def test_adjoint_turns_the_velocity(boundary, forcing, grid):
    ahead, back = both_sides(grid, coefficients(grid, tensor="full"), boundary=boundary, forcing=forcing)
    assert_close(ahead, back, 1e-9, "adjoint")


@grids
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_self_adjoint_without_convection(boundary, grid):
    chosen = coefficients(grid, tensor="diagonal", convection=False)
    ahead, back = both_sides(grid, chosen, boundary=boundary)
    assert_close(ahead, back, 1e-9, "adjoint")


@pytest.mark.parametrize("boundary", ["neumann", "dirichlet"])
@pytest.mark.parametrize(("tensor", "convection"), [("diagonal", True), ("full", False)])
def test_adjoint_fails_elsewhere(tensor, convection, boundary):
    ahead, back = both_sides((5, 6), coefficients((5, 6), tensor=tensor, convection=convection), boundary=boundary)
    assert_differs(ahead, back, 1e-3, "adjoint")


def test_convection_keeps_the_energy_on_odd_grids_only():
    for grid in [(5, 7), (6, 6)]:
        field, chosen = noise(2, *grid), coefficients(grid, tensor="none", reaction=False)
        before, after = ((f**2).sum((-2, -1)) for f in (field, run(field, **chosen)))
        if grid == (5, 7):
            assert_close(after, before, 1e-12, "energy")
        else:
            assert_differs(after, before, 1e-3, "energy")


@grids
def test_nothing_grows_in_energy(grid):
    field = noise(2, *grid)
    for tensor in TENSORS:
        after = run(field, **coefficients(grid, tensor=tensor))
        assert ((after**2).sum((-2, -1)) < (field**2).sum((-2, -1))).all(), tensor


# Symmetry ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("forcing", FORCINGS)
@pytest.mark.parametrize("side", [5, 6])
def test_isotropic_diffusion_knows_no_direction(side, forcing, boundary):
    field, chosen = noise(2, side, side), coefficients((side, side), convection=False)
    given = {**chosen, "boundary": boundary, "forcing": forcing}
    out = run(field, **given)
    for name, turn in SQUARE.items():
        assert_close(run(turn(field), **given), turn(out), 1e-9, name)


SQUARE = {
    "flip rows": lambda f: np.flip(f, -2).copy(),
    "flip columns": lambda f: np.flip(f, -1).copy(),
    "quarter turn": lambda f: np.rot90(f, axes=(-2, -1)).copy(),
    "transpose": lambda f: np.swapaxes(f, -2, -1).copy(),
}
# The same maps on vectors (row, column). rot90 takes (row, column) to (−column, row) about the middle.
MATRICES = {
    "flip rows": np.array([[-1, 0], [0, 1]]),
    "flip columns": np.array([[1, 0], [0, -1]]),
    "quarter turn": np.array([[0, -1], [1, 0]]),
    "transpose": np.array([[0, 1], [1, 0]]),
}


@pytest.mark.parametrize("name", SQUARE)
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("grid", [(5, 5), (6, 6), (4, 7)], ids=str)
def test_turning_the_field_and_the_coefficients_turns_the_result(grid, boundary, name):
    field, chosen = noise(2, *grid), coefficients(grid, tensor="full", units="image")
    turn, matrix = SQUARE[name], MATRICES[name]
    turned = {
        **chosen,
        "diffusion": matrix @ chosen["diffusion"] @ matrix.T,
        "velocity": chosen["velocity"] @ matrix.T,
    }
    out = run(field, **chosen, boundary=boundary, units="image")
    assert_close(run(turn(field), **turned, boundary=boundary, units="image"), turn(out), 1e-9, name)


@pytest.mark.parametrize("forcing", FORCINGS)
def test_periodic_shifts_commute(forcing):
    field, chosen = noise(2, 6, 5), coefficients((6, 5), tensor="full")
    out = run(field, **chosen, forcing=forcing)
    moved = run(np.roll(field, (2, 1), (-2, -1)), **chosen, forcing=forcing)
    assert_close(moved, np.roll(out, (2, 1), (-2, -1)), 1e-12, "shifted")


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_channels_and_images_do_not_meet(boundary):
    field, chosen = noise(3, 2, 4, 5), coefficients((4, 5), tensor="full")
    together = run(field, **chosen, boundary=boundary)
    for image in range(3):
        for channel in range(2):
            alone = {name: value[channel : channel + 1] for name, value in chosen.items()}
            out = run(field[image, channel : channel + 1], **alone, boundary=boundary)
            assert_close(together[image, channel], out[0], 1e-12, f"image {image}, channel {channel}")
