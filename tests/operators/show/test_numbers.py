"""The numbers behind the pictures against mathematics: spots, spectra, distances, films, frames of maps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import operators
from operators import BARE
from operators.pde import propagate
from operators.show import equation, layers, maps
from operators.testing.checks import assert_close

GRID = (8, 6)
AREA = GRID[0] * GRID[1]


def state(name: str, grid: tuple[int, int] = GRID, dim: int = 2, **params: object) -> layers.State:
    return layers.fresh(name, dim=dim, grid=grid, params=params).states[0]


def by_hand(**params: object) -> layers.State:
    """One channel whose single equation has lengths 2 and 0.5 tokens, shifts by (1.5, -0.75), decays by 0.3."""
    made = state("pde_ssm", dim=1, state=1, **params)
    core = made.mixer.core.double()
    side = math.sqrt(AREA)  # of the image, in tokens
    with torch.no_grad():
        core.log_length.copy_(torch.tensor([2.0, 0.5]).log() - math.log(side))
        core.velocity.copy_(torch.tensor([1.5, -0.75]) / side)
        core.reaction_logit.fill_(math.log(0.3 / (8 - 0.3)))
        core.readout.fill_(1)
        core.skip.fill_(0)
    return layers.State("", made.mixer.double(), made.x.double())


def test_ellipses_arrows_and_decays_are_those_set_by_hand() -> None:
    made = equation.spots(by_hand())
    semi, directions = made.axes
    assert_close(semi, torch.tensor([[2.0, 0.5]]).double(), 1e-6, "semi-axes")
    assert_close(directions[0, 0].abs(), torch.tensor([1.0, 0.0]).double(), 1e-6, "direction of the longer one")
    assert_close(made.shifts, torch.tensor([[1.5, -0.75]]).double(), 1e-6, "shift")
    assert_close(made.speeds, torch.tensor([math.hypot(1.5, 0.75)]).double(), 1e-6, "distance")
    assert_close(made.decays, torch.tensor([0.3]).double(), 1e-6, "decay")


def test_a_sheared_tensor_turns_its_ellipse() -> None:
    """K = R diag(a², b²) Rᵀ / 2 for axes a and b of an ellipse turned by R."""
    angle, semi = 0.4, torch.tensor([3.0, 1.0], dtype=torch.float64)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    k = turn @ torch.diag(semi.square() / 2) @ turn.mT
    zero = torch.zeros(1, dtype=torch.float64)
    made = equation.Spots(k[None], zero.expand(1, 2), zero, zero, "periodic", "initial")
    lengths, directions = made.axes
    assert_close(lengths, semi[None], 1e-12, "semi-axes")
    assert_close((directions[0, 0] @ turn[:, 0]).abs(), torch.ones(()).double(), 1e-12, "direction")


@pytest.mark.parametrize("params", [{"tensor": "full"}, {"units": "pixel"}, {"condition": "input", "groups": 2}])
def test_spots_are_of_the_coefficients_of_the_call(params: dict[str, object]) -> None:
    """Whatever their units, and whether or not an image decides: in tokens, one for each group and state."""
    shown = state("pde_ssm", state=3, **params)
    core = shown.mixer.core
    solved = core.solve_coefficients(shown.x[None], None).in_pixels(GRID, "image").map(lambda value: value.flatten())
    made = equation.spots(shown)
    assert_close(made.diffusion[:, 0, 0].float(), solved.kyy.detach(), 1e-5, "K down")
    assert_close(made.diffusion[:, 1, 1].float(), solved.kxx.detach(), 1e-5, "K across")
    if params.get("tensor") == "full":
        assert_close(made.diffusion[:, 0, 1].float(), solved.kxy.detach(), 1e-5, "K between")
    assert_close(made.shifts[:, 1].float(), solved.vx.detach(), 1e-5, "v across")
    assert len(made.weights) == 6


def test_the_spectrum_of_a_diffusion_is_a_gaussian() -> None:
    """|G(k)| = exp(-τ (kᵀ K k - r)), and a velocity changes no size; on odd sides, which have no Nyquist wave."""
    grid = (9, 7)
    shown = state("pde_ssm", grid, dim=1, state=1, terms=["diffusion"])
    core = shown.mixer.core
    with torch.no_grad():
        core.log_length.copy_(torch.tensor([1.2, 0.7]).log() - math.log(grid[0] * grid[1]) / 2)
        core.readout.fill_(1)
        core.skip.fill_(0)
    ky, kx = (2 * math.pi * torch.fft.fftfreq(side, dtype=torch.float64) for side in grid)
    expected = torch.exp(-(1.2**2 / 2 * ky[:, None] ** 2 + 0.7**2 / 2 * kx[None] ** 2))
    exact = layers.State("", shown.mixer.double(), shown.x.double())
    assert_close(layers.gain(exact.response)[..., 0], expected, 1e-6, "gain")


def test_mixing_distance_of_the_identity_is_zero_and_of_a_shift_its_length() -> None:
    assert layers.mixing_distance(state("identity").response.square().mean(-1).sqrt()) == 0
    pulse = torch.zeros(GRID)
    pulse[GRID[0] // 2, GRID[1] // 2] = 2.0
    assert layers.mixing_distance(pulse) == 0
    assert layers.mixing_distance(torch.zeros(GRID)) == 0
    assert layers.mixing_distance(pulse.roll((3, -2), (0, 1))) == pytest.approx(math.hypot(3, 2))
    assert layers.mixing_distance(pulse.roll((3, -2), (0, 1)), (4.0, 2.0)) == pytest.approx(math.hypot(12, 4))
    halves = pulse + pulse.roll(2, 0)
    assert layers.mixing_distance(halves) == pytest.approx(1)


def test_a_layer_that_shifts_mixes_as_far_as_it_shifts() -> None:
    shown = state("pde_ssm", dim=1, state=1, terms=["convection"])
    with torch.no_grad():
        shown.mixer.core.velocity.copy_(torch.tensor([2.0, -1.0]) / math.sqrt(AREA))
        shown.mixer.core.skip.fill_(0)
    exact = layers.State("", shown.mixer.double(), shown.x.double())
    assert layers.mixing_distance(exact.response[..., 0].abs()) == pytest.approx(math.hypot(2, 1), abs=1e-6)


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
def test_a_film_ends_with_what_the_layer_gives(boundary: str) -> None:
    shown = by_hand(boundary=boundary)
    made = equation.spots(shown)
    field = equation.example_field(*GRID).double()
    times = [0.0, 0.4, 1.0]
    frames = equation.film(made, torch.tensor([0]), field, times)
    assert frames.shape == (3, 1, *GRID)
    assert_close(frames[0, 0], field, 1e-9, "start")
    assert_close(frames[2, 0], shown.mixer(field[None, ..., None])[0, ..., 0].detach(), 1e-6, "end")
    between = propagate(
        field[None], diffusion=torch.tensor([[2.0, 0.125]]).double(), velocity=torch.tensor([[1.5, -0.75]]).double(),
        reaction=torch.tensor([-0.3]).double(), time=0.4, boundary=boundary,
    )  # fmt: skip
    assert_close(frames[1], between, 1e-6, "between")


def test_states_are_chosen_by_their_lengths() -> None:
    k = torch.tensor([3.0, 1.0, 2.0]).double()[:, None, None] * torch.eye(2).double()
    zero = torch.zeros(3).double()
    still = equation.Spots(k, zero[:, None].expand(3, 2), zero, zero, "periodic", "initial")
    assert still.chosen([0, 0.5, 1]).tolist() == [1, 2, 0]
    moving = equation.Spots(0 * k, torch.tensor([[0.0, 5], [4, 0], [1, 1]]).double(), zero, zero, "periodic", "initial")
    assert moving.chosen([0, 1]).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("name", "params", "reason"),
    [
        ("attention", {}, ""),
        ("pde_ssm", {"terms": ["reaction"]}, "None of its terms is spatial"),
        ("pde_ssm", {"order": 2}, "second order"),
        ("pde_ssm", {"nonlinearity": "logistic"}, "not linear"),
    ],
)
def test_layers_without_spots_say_why(name: str, params: dict[str, object], reason: str) -> None:
    found = equation.undrawn(state(name, **params))
    assert found is not None
    assert (reason in found) if reason else not found


def drawn(named: dict[str, Tensor], grid: tuple[int, int] = GRID) -> dict[str, maps.Maps | maps.Curves]:
    return {each.name: each for each in maps.drawable(named, grid)}


def test_maps_are_told_apart_by_name_and_shape() -> None:
    tokens = torch.arange(AREA * AREA).view(1, AREA, AREA)
    coarse = torch.rand(1, 2, AREA, AREA // 4)
    half = torch.rand(GRID[0], GRID[1] // 2 + 1)
    shown = drawn(
        {
            "map": tokens,
            "reduced": coarse,
            "decay": torch.rand(1, 3, *GRID),
            "kernel": torch.rand(5, 7, 7),
            "bias": torch.rand(2, 15, 11),
            "gain": half,
            "coarse_step": torch.rand(1, 4, 3),
            "gate": torch.rand(1, 5),
            "line": torch.rand(1, 4, AREA),
            "q": torch.rand(1, 2, AREA, 5),
        }
    )
    middle = GRID[0] // 2 * GRID[1] + GRID[1] // 2
    assert shown["map"].frame == maps.READS
    assert torch.equal(shown["map"].maps[0], tokens[0, middle].view(GRID).double())
    assert (shown["reduced"].frame, shown["reduced"].span) == (maps.READS, (2, 2))
    assert torch.equal(shown["reduced"].maps[1], coarse[0, 1, middle].view(4, 3).double())
    assert (shown["decay"].frame, shown["decay"].index) == (maps.TOKENS, [(0,), (1,), (2,)])
    assert shown["kernel"].frame == shown["bias"].frame == maps.OFFSETS
    assert shown["gain"].frame == maps.WAVES
    assert torch.equal(shown["gain"].maps[0, GRID[0] // 2], half[0].double()), "zero frequency in the middle"
    assert (shown["coarse_step"].frame, shown["coarse_step"].span) == (maps.TOKENS, (2, 2))
    assert (shown["gate"].along, shown["line"].values.shape) == ("channel", (4, AREA))
    assert "q" not in shown


def test_a_filter_as_large_as_the_grid_is_one_by_offset() -> None:
    shown = drawn({"kernel": torch.rand(5, 7, 7), "step": torch.rand(5, 7, 7)}, (7, 7))
    assert [shown[name].frame for name in ("kernel", "step")] == [maps.OFFSETS, maps.TOKENS]


def test_fresh_mixers_leave_the_global_generator_and_are_what_is_asked_for() -> None:
    before = torch.get_rng_state()
    made = state("pde_ssm", tensor="full")
    assert torch.equal(torch.get_rng_state(), before)
    assert made.mixer.shell.spec == BARE
    assert made.mixer.core.agreed.tensor == "full"
    assert torch.equal(made.x, state("pde_ssm").x)
    assert state("pde_ssm", condition="cond", groups=1).cond is not None
    assert operators.describe("conv").name == state("conv").mixer.card.name
