"""Symmetries that no card names: of the mirror, of copies of all tokens, and those that hold with some parameters."""

import pytest
import torch

import operators
from operators.testing.cases import Case, noise, run, tokens
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.drawn import image, make, set_to

GRID = (5, 7)
TIGHT = 1e-10
BLIND = operators.names(permutation_equivariant=True)
MIRRORED = ("fastvim", "pool", "vheat")
"""Mixers that know where tokens are, and not on which side (one side in `fastvim`, along the lines that it pools)."""
AXES = {"fastvim": (2,)}
"""Of which axes that is so, if not of both."""


def of_its_own_grid(name, grid):
    case = Case(name, operators.BARE)
    return case.perturbed(grid if operators.describe(name).fixed_grid else None)


@pytest.mark.parametrize("name", operators.names())
def test_which_mixers_commute_with_a_mirror(name):
    """In float64, far from the start, in either axis."""
    mixer, x = of_its_own_grid(name, GRID), tokens(GRID, dtype=torch.float64)
    for axis in (1, 2):
        moved, expected = run(mixer, x.flip(axis)), run(mixer, x).flip(axis)
        if name in (*BLIND, *MIRRORED) and axis in AXES.get(name, (1, 2)):
            assert_close(moved, expected, TIGHT, "output of the mirrored image")
        else:
            assert_differs(moved, expected, 1e-4, "output of the mirrored image")


@pytest.mark.parametrize("name", BLIND)
def test_copies_of_all_tokens_change_nothing_but_what_is_extensive(name):
    mixer, x = of_its_own_grid(name, None), tokens(GRID, dtype=torch.float64)
    copied, expected = run(mixer, x.tile(1, 2, 1, 1)), run(mixer, x).tile(1, 2, 1, 1)
    if operators.describe(name).extensive:
        assert_differs(copied, expected, 0.1, "output of two copies")
    else:
        assert_close(copied, expected, TIGHT, "output of two copies")


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("attention", {"rope": True}),
        ("attention", {"qk_norm": True}),
        ("hsm_ssd", {"conv": 3}),
        ("linear_attention", {"feature_map": "relu"}),
        ("lion", {"variant": "lit"}),
        ("mlla", {"rope": False}),
        ("mlla", {"rope": False, "lepe": True}),
        ("polaformer", {"lepe": True}),
        ("polaformer", {"positions": True}),
        ("pom", {"rope": True}),
        ("rala", {"rope": False}),
        ("rala", {"rope": False, "lepe": True}),
        ("ttt", {"convolution": False}),
        ("vssd", {"conv": 3}),
    ],
    ids=str,
)
def test_permutations_commute_where_a_core_says_so(name, params):
    mixer, x = make(name, 16, grid=GRID, **params), image(*GRID, width=16)
    order = torch.randperm(35, generator=torch.Generator().manual_seed(5))

    def permuted(field):
        return field.flatten(1, 2)[:, order].view(field.shape)

    moved, expected = run(mixer, permuted(x)), permuted(run(mixer, x))
    if mixer.core.permutation_equivariant:
        assert_close(moved, expected, TIGHT, "output of permuted tokens")
    else:
        assert_differs(moved, expected, 1e-4, "output of permuted tokens")


def symmetric(name):
    """A mixer that is made to commute with a mirror of the columns."""
    mixer = make(name, grid=GRID, **({"terms": ["diffusion", "convection"]} if name == "pde_ssm" else {}))
    core = mixer.core
    with torch.no_grad():
        if name == "conv":
            core.conv.weight += core.conv.weight.flip(-1)
        elif (
            name == "gfnet"
        ):  # the columns' waves are those of a real line of either direction: K(−k_y, m) for its mirror
            real, imaginary = core.filter
            turned = real.flip(0).roll(1, 0), -imaginary.flip(0).roll(1, 0)
            core.filter += torch.stack(turned)
        elif name == "fno":
            real, imaginary = core.matrices.unbind(3)
            core.matrices += torch.stack([real.flip(0), -imaginary.flip(0)], 3)
        elif name == "pde_ssm":
            core.velocity[..., 1] = 0
        elif name == "hyena_pixel":
            core.places += core.places.flip(1)
        elif name == "hyena_nd":
            core.directions_weight[2:] = core.directions_weight[:2]
    return mixer


@pytest.mark.parametrize("name", ["conv", "fno", "gfnet", "hyena_nd", "hyena_pixel", "pde_ssm"])
def test_a_symmetric_filter_commutes_with_the_mirror(name):
    mixer, x = symmetric(name), image(*GRID)
    assert_close(run(mixer, x.flip(2)), run(mixer, x).flip(2), TIGHT, "output of the mirrored image")


@pytest.mark.parametrize("name", ["mamba3", "log_linear"])
def test_one_order_sees_no_later_token(name):
    mixer, x = make(name, orders=["col"]), image(4, 5)
    changed = x.clone()
    changed[:, :, 3] += 1
    before, after = run(mixer, x), run(mixer, changed)
    assert_close(after[:, :, :3], before[:, :, :3], 1e-14, "earlier columns")
    assert_differs(after[:, :, 4], before[:, :, 4], 1e-3, "later column")


@pytest.mark.parametrize("nonlinearity", ["allen_cahn", "logistic"])
def test_a_reaction_commutes_with_wrapped_shifts_and_not_with_sums(nonlinearity):
    mixer = make("pde_ssm", grid=GRID, nonlinearity=nonlinearity, method="fft", steps=2)
    x, other = image(*GRID), image(*GRID, seed=3)
    assert_close(run(mixer, x.roll((1, 2), (1, 2))), run(mixer, x).roll((1, 2), (1, 2)), TIGHT, "output of a shift")
    assert_differs(run(mixer, x + other), run(mixer, x) + run(mixer, other), 1e-2, "output of a sum")


def test_focal_modulation_without_its_global_gate_moves_with_the_image_away_from_the_border():
    mixer = make("focal", levels=2)
    set_to(0.0, mixer.core.maps.weight[-1], mixer.core.maps.bias[-1])
    x = noise(1, 12, 13, 6, dtype=torch.float64)
    here, there = run(mixer, x[:, :-1, :-2])[:, 4:-3, 5:-3], run(mixer, x[:, 1:, 2:])[:, 3:-4, 3:-5]
    assert_close(there, here, 1e-12, "interior of a shifted window")
