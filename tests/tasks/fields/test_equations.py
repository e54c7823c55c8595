"""The solver against closed forms."""

import itertools

import numpy as np
import pytest
from scipy.special import ive

from tasks.fields.box import Box
from tasks.fields.equations import (
    EQUATIONS,
    AdvectionDiffusion,
    Burgers,
    Equation,
    GrayScott,
    ShallowWater,
    Wave,
    get,
)
from tasks.fields.solver import Solver, trajectory

ROW, COLUMN = 2 * np.pi * 2, -2 * np.pi * 3
EVERY = [(name, boundary) for name in EQUATIONS for boundary in ("periodic", "reflecting")]


def grid(box: Box) -> tuple[np.ndarray, np.ndarray]:
    centres = (np.arange(box.grid) + 0.5) * box.side / box.grid
    return centres[:, None], centres[None]


def drawn(equation: Equation, box: Box, seed: int = 0) -> np.ndarray:
    """A state that has no waves which the solver cuts off."""
    return Solver(equation, box).step(equation.draw(np.random.default_rng(seed), box), 0.0)


def test_a_wave_of_concentration_moves_and_decays() -> None:
    box, time = Box(16), 0.7
    equation = AdvectionDiffusion(velocity=(0.4, 0.9), diffusivity=1e-3)
    rows, columns = grid(box)
    after = Solver(equation, box).step(np.cos(ROW * rows + COLUMN * columns)[None], time)
    decay = np.exp(-1e-3 * (ROW**2 + COLUMN**2) * time)
    moved = np.cos(ROW * (rows - 0.4 * time) + COLUMN * (columns - 0.9 * time))
    np.testing.assert_allclose(after[0], decay * moved, atol=1e-13)


def test_diffusion_between_walls_is_that_of_a_cosine() -> None:
    box, time = Box(12, "reflecting"), 3.0
    rows, columns = grid(box)
    mode = np.cos(np.pi * rows) * np.cos(2 * np.pi * columns)
    after = Solver(AdvectionDiffusion(swirl=0.0, diffusivity=0.01), box).step(mode[None], time)
    np.testing.assert_allclose(after[0], np.exp(-0.01 * 5 * np.pi**2 * time) * mode, atol=1e-10)


@pytest.mark.parametrize("boundary", ["periodic", "reflecting"])
def test_a_standing_wave_swings_at_its_frequency(boundary: str) -> None:
    box, speed, time = Box(16, boundary), 1.5, 0.37
    rows, columns = grid(box)
    mode = np.cos(2 * np.pi * rows) * np.cos(4 * np.pi * columns)
    frequency = speed * np.hypot(2 * np.pi, 4 * np.pi)
    after = Solver(Wave(speed=speed), box).step(np.stack([mode, 0 * mode]), time)
    np.testing.assert_allclose(after[0], np.cos(frequency * time) * mode, atol=1e-12)
    np.testing.assert_allclose(after[1], -frequency * np.sin(frequency * time) * mode, atol=1e-10)


@pytest.mark.parametrize("boundary", ["periodic", "reflecting"])
def test_waves_keep_their_energy(boundary: str) -> None:
    box, equation = Box(24, boundary), Wave(speed=0.8)

    def energy(state: np.ndarray) -> float:
        spectrum = box.spectrum(box.extend(state, equation.parities))
        slope = box.values(box.gradient(spectrum[0]))
        return float((box.values(spectrum[1]) ** 2).mean() + 0.8**2 * (slope**2).sum(axis=0).mean())

    states = Solver(equation, box).trajectory(drawn(equation, box), 0.11, 8)
    energies = [energy(state) for state in states]
    np.testing.assert_allclose(energies, energies[0], rtol=1e-11)


def cole_hopf(place: np.ndarray, time: float, viscosity: float) -> np.ndarray:
    """Burgers' equation from sin(2πx), by Cole and Hopf: u = −2ν ∂x φ / φ, where φ diffuses.

    φ = exp(cos(2πx) / 4πν) at the start, whose Fourier coefficients are modified Bessel functions.
    """
    strength = 1 / (4 * np.pi * viscosity)
    number = np.arange(1, 80)
    weights = 2 * ive(number, strength) * np.exp(-viscosity * (2 * np.pi * number) ** 2 * time)
    phase = 2 * np.pi * np.outer(place, number)
    phi = ive(0, strength) + np.cos(phase) @ weights
    slope = -np.sin(phase) @ (2 * np.pi * number * weights)
    return -2 * viscosity * slope / phi


@pytest.mark.parametrize("axis", [0, 1])
def test_burgers_of_one_dimension_is_that_of_cole_and_hopf(axis: int) -> None:
    box, viscosity, time = Box(64), 0.03, 0.3
    place = grid(box)[axis] + np.zeros((64, 64))
    state = np.zeros((2, 64, 64))
    state[axis] = np.sin(2 * np.pi * place)
    after = Solver(Burgers(viscosity=viscosity), box).step(state, time)
    exact = cole_hopf(grid(box)[axis].ravel(), time, viscosity)
    line = after[axis][:, 0] if axis == 0 else after[axis][0]
    np.testing.assert_allclose(line, exact, atol=1e-6)
    np.testing.assert_allclose(after[1 - axis], 0, atol=1e-12)
    assert abs(exact - np.sin(2 * np.pi * grid(box)[axis].ravel())).max() > 0.3


@pytest.mark.parametrize("boundary", ["periodic", "reflecting"])
def test_water_keeps_its_mass(boundary: str) -> None:
    box, equation = Box(16, boundary), ShallowWater()
    states = Solver(equation, box).trajectory(drawn(equation, box), 0.2, 5)
    np.testing.assert_allclose(states[:, 0].mean(axis=(1, 2)), states[0, 0].mean(), rtol=1e-14)
    assert abs(states[-1, 1:]).max() > 0.01


def test_low_waves_of_water_run_at_the_root_of_gravity_times_depth() -> None:
    equation = ShallowWater(gravity=2.0, depth=0.5, viscosity=0.0)
    box, height, speed, time = Box(16), 1e-7, 1.0, 0.3
    rows, _ = grid(box)
    wave = height * np.cos(2 * np.pi * rows) + np.zeros((16, 16))
    state = np.stack([0.5 + wave, wave * speed / 0.5, 0 * wave])
    after = Solver(equation, box).step(state, time)
    moved = height * np.cos(2 * np.pi * (rows - speed * time)) + np.zeros((16, 16))
    np.testing.assert_allclose(after[0] - 0.5, moved, atol=1e-5 * height)


def test_uniform_states_of_gray_scott_stay() -> None:
    feed, kill = 0.04, 0.05
    u = (1 + np.sqrt(1 - 4 * (feed + kill) ** 2 / feed)) / 2
    steady = [(1.0, 0.0), (u, feed * (1 - u) / (feed + kill)), (1 - u, feed * u / (feed + kill))]
    solver = Solver(GrayScott(feed=feed, kill=kill), Box(8))
    for pair in steady:
        state = np.ones((2, 8, 8)) * np.array(pair)[:, None, None]
        np.testing.assert_allclose(solver.step(state, 5.0), state, atol=1e-12)


@pytest.mark.parametrize("name", ["burgers", "gray_scott", "shallow_water"])
def test_the_scheme_is_of_fourth_order(name: str) -> None:
    equation, box = get(name), Box(16)
    state = drawn(equation, box)
    time = 2 * equation.interval
    halved = [Solver(equation, box, courant).step(state, time) for courant in (1.0, 0.5, 0.25, 0.125)]
    differences = [np.sqrt(np.square(a - b).mean()) for a, b in itertools.pairwise(halved)]
    order = -np.polyfit(range(3), np.log2(differences), 1)[0]
    assert 3.7 < order < 4.4, differences


@pytest.mark.parametrize(("name", "boundary"), EVERY)
def test_two_steps_are_one_of_twice_the_time(name: str, boundary: str) -> None:
    equation, box = get(name), Box(16, boundary)
    solver, state = Solver(equation, box, 0.5), drawn(get(name), box)
    twice = solver.step(solver.step(state, equation.interval), equation.interval)
    once = solver.step(state, 2 * equation.interval)
    np.testing.assert_allclose(once, twice, atol=1e-3 * state.std())


@pytest.mark.parametrize("name", EQUATIONS)
def test_walls_are_those_of_the_doubled_torus(name: str) -> None:
    equation, walled, torus = get(name), Box(16, "reflecting"), Box(32, "periodic", side=2.0)
    if isinstance(equation, AdvectionDiffusion):
        equation = AdvectionDiffusion(velocity=(0.0, 0.0), swirl=0.0)
    state = drawn(equation, walled)
    time = equation.interval
    whole = Solver(equation, torus).step(walled.extend(state, equation.parities), time)
    after = Solver(equation, walled).step(state, time)
    np.testing.assert_allclose(whole[:, :16, :16], after, atol=1e-11)
    np.testing.assert_allclose(whole, walled.extend(after, equation.parities), atol=1e-11)


@pytest.mark.parametrize("name", EQUATIONS)
def test_nothing_crosses_a_wall(name: str) -> None:
    """Across a wall, vectors have no component and scalars no gradient: both are odd on a line through it."""
    equation, box = get(name), Box(16, "reflecting")
    after = Solver(equation, box).step(drawn(equation, box), 2 * equation.interval)
    spectrum = box.spectrum(box.extend(after, equation.parities))
    for axis in (0, 1):
        fields = [
            component if parity[axis] == -1 else box.gradient(component)[axis]
            for component, parity in zip(spectrum, equation.parities, strict=True)
        ]
        half_pixel = np.exp(-1j * box.waves[axis] * box.side / box.grid / 2)
        at_walls = box.values(np.stack(fields) * half_pixel)
        lines = at_walls[:, [0, 16]] if axis == 0 else at_walls[:, :, [0, 16]]
        assert abs(lines).max() < 1e-9 * abs(at_walls).max()


def halved(values: np.ndarray) -> np.ndarray:
    """Fields (C, 2n, 2n) on a torus, without their shorter waves, at the centres of n × n pixels."""
    points = values.shape[-1]
    low = [*range(points // 4), *range(-points // 4 + 1, 0)]
    coarse = np.zeros((len(values), points // 2, points // 2), complex)
    delay = np.exp(1j * np.pi * np.array(low) / points)
    chosen = np.fft.fft2(values)[:, low][:, :, low] * delay[:, None] * delay / 4
    coarse[np.ix_(range(len(values)), low, low)] = chosen
    return np.fft.ifft2(coarse).real


@pytest.mark.parametrize("boundary", ["periodic", pytest.param("reflecting", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", EQUATIONS)
def test_the_same_draw_on_twice_the_grid_agrees(name: str, boundary: str) -> None:
    equation = get(name)
    low, high = (
        trajectory(equation, Box(n, boundary), 2, seed=1, split="test", index=2).astype(np.float64) for n in (32, 64)
    )
    for coarse, fine in zip(low, high, strict=True):
        seen = halved(Box(64, boundary).extend(fine, equation.parities))[:, :32, :32]
        error = np.sqrt(np.square(seen - coarse).mean(axis=(1, 2)) / coarse.var(axis=(1, 2)))
        assert error.max() < 0.02


def test_what_does_not_stay_finite_is_refused() -> None:
    box = Box(8)
    with pytest.raises(RuntimeError, match="gray_scott did not stay finite"), np.errstate(all="ignore"):
        Solver(GrayScott(), box, courant=1e9).step(-1e3 * np.ones((2, 8, 8)), 100.0)
