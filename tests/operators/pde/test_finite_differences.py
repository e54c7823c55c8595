"""The operator against a solver that knows nothing of Fourier: central differences on the pixels, second order.

The image has area 1 and spacing h = 1/√(H W); the error must fall like h².
"""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.sparse import csc_matrix, diags_array, eye_array, kron
from scipy.sparse.linalg import expm_multiply, spsolve

from operators.testing.checks import relative_error
from tests.operators.pde.cases import run

SIDES = (8, 16, 32)
GRIDS = [(side, side * 3 // 2) for side in SIDES]


@dataclass
class Differences:
    """Central first and second differences along an axis of `n` pixels of size h; `ghost` is the mirrored pixel's sign.

    `ghost` 0 wraps, +1 mirrors (no flux), −1 mirrors with a change of sign (zero at the edge).
    """

    n: int
    h: float
    ghost: int

    def once(self):
        matrix = diags_array([-np.ones(self.n - 1), np.ones(self.n - 1)], offsets=[-1, 1]).tolil()
        matrix[0, -1 if self.ghost == 0 else 0] -= self.ghost or 1
        matrix[-1, 0 if self.ghost == 0 else -1] += self.ghost or 1
        return matrix.tocsc() / (2 * self.h)

    def twice(self):
        matrix = diags_array([np.ones(self.n - 1), -2 * np.ones(self.n), np.ones(self.n - 1)], offsets=[-1, 0, 1])
        matrix = matrix.tolil()
        matrix[0, -1 if self.ghost == 0 else 0] += self.ghost or 1
        matrix[-1, 0 if self.ghost == 0 else -1] += self.ghost or 1
        return matrix.tocsc() / self.h**2


def generator(grid, boundary, tensor, velocity, reaction):
    """L = ∇·K∇ − v·∇ + r as a sparse matrix on the pixels, rows first."""
    h = 1 / np.sqrt(grid[0] * grid[1])
    y, x = (Differences(n, h, {"periodic": 0, "neumann": 1, "dirichlet": -1}[boundary]) for n in grid)
    rows, columns = eye_array(grid[0]), eye_array(grid[1])
    cross = kron(y.once(), x.once())
    spread = tensor[0, 0] * kron(y.twice(), columns) + tensor[1, 1] * kron(rows, x.twice())
    drift = velocity[0] * kron(y.once(), columns) + velocity[1] * kron(rows, x.once())
    return csc_matrix(spread + 2 * tensor[0, 1] * cross - drift + reaction * eye_array(grid[0] * grid[1]))


def solve(matrix, field, time, forcing):
    f = field.ravel()
    if forcing == "steady":
        return spsolve(matrix, -f).reshape(field.shape)
    moved = expm_multiply(matrix * time, f)
    return (moved if forcing == "initial" else spsolve(matrix, moved - f)).reshape(field.shape)


def picture(grid, boundary):
    """A smooth field that meets its boundary's condition, at the pixels' centres."""
    y, x = ((np.arange(n) + 0.5) / n for n in grid)
    y = y[:, None]
    if boundary == "periodic":
        return np.exp(np.sin(2 * np.pi * y + 0.3)) * np.exp(0.5 * np.cos(2 * np.pi * x + 0.7 + np.sin(2 * np.pi * y)))
    if boundary == "neumann":
        return np.exp(np.cos(np.pi * y)) * np.exp(0.5 * np.cos(2 * np.pi * x) + np.cos(np.pi * y) * np.cos(np.pi * x))
    return np.sin(np.pi * y) * np.sin(np.pi * x) * np.exp(np.cos(2 * np.pi * y)) * np.exp(0.5 * np.cos(2 * np.pi * x))


PLAIN = np.array([[0.02, 0.0], [0.0, 0.01]])
TILTED = np.array([[0.02, 0.008], [0.008, 0.01]])
STILL, DRIFT = np.zeros(2), np.array([0.23, -0.31])
CASES = {
    "periodic, all terms": ("periodic", TILTED, DRIFT),
    "periodic": ("periodic", PLAIN, STILL),
    "neumann": ("neumann", PLAIN, STILL),
    "dirichlet": ("dirichlet", PLAIN, STILL),
}


@pytest.mark.parametrize("forcing", ["initial", "constant", "steady"])
@pytest.mark.parametrize(("boundary", "tensor", "velocity"), CASES.values(), ids=CASES)
def test_central_differences_converge_to_it_with_order_two(boundary, tensor, velocity, forcing):
    errors = []
    for grid in GRIDS:
        field = picture(grid, boundary)
        expected = solve(generator(grid, boundary, tensor, velocity, -0.4), field, 0.8, forcing)
        out = run(
            field[None],
            diffusion=tensor[None],
            velocity=velocity[None],
            reaction=np.array([-0.4]),
            time=0.8,
            boundary=boundary,
            forcing=forcing,
            units="image",
        )
        errors.append(relative_error(expected, out[0]))
    slope = np.polyfit(np.log(SIDES), np.log(errors), 1)[0]
    assert errors[-1] < 0.01
    assert slope == pytest.approx(-2, abs=0.15), errors


@pytest.mark.parametrize(("tensor", "velocity"), [(PLAIN, DRIFT), (TILTED, STILL)], ids=["convection", "full tensor"])
@pytest.mark.parametrize("boundary", ["neumann", "dirichlet"])
def test_elsewhere_the_extension_and_not_the_boundary_condition_defines_it(boundary, tensor, velocity):
    """With convection or a full tensor the operator is another one than that of the boundary-value problem."""
    errors = []
    for grid in GRIDS:
        field = picture(grid, boundary)
        solved = solve(generator(grid, boundary, tensor, velocity, 0.0), field, 0.8, "initial")
        out = run(
            field[None], diffusion=tensor[None], velocity=velocity[None], time=0.8, boundary=boundary, units="image"
        )
        errors.append(relative_error(out[0], solved))
    assert errors[-1] > 0.02, errors
    assert errors[-1] > 0.5 * errors[0], "it does not converge away"
