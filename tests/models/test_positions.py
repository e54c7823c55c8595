"""Position embeddings: their values, and what they do on other grids than the nominal one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models import positions
from operators import InputError
from operators.testing.checks import assert_close, assert_differs

DIM = 16
GRID = (6, 10)


def embedding(module: torch.nn.Module, height: int, width: int) -> Tensor:
    """What the module adds to a grid of height × width."""
    with torch.no_grad():
        return module(torch.zeros(1, height, width, DIM))[0]


def learned() -> positions.LearnedPositions:
    module = positions.LearnedPositions(DIM, GRID)
    torch.nn.init.normal_(module.table)
    return module


def test_sincos_is_the_formula_at_the_nominal_grid() -> None:
    expected = torch.empty(*GRID, DIM, dtype=torch.float64)
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            for half, coordinate in enumerate((row, column)):
                for k in range(DIM // 4):
                    angle = coordinate * 10000 ** (-k / (DIM // 4))
                    expected[row, column, half * DIM // 2 + k] = math.sin(angle)
                    expected[row, column, half * DIM // 2 + DIM // 4 + k] = math.cos(angle)
    assert_close(embedding(positions.create("sincos", DIM, GRID), *GRID), expected.float(), 1e-6, "sincos")


def test_sincos_gives_a_point_of_the_picture_the_same_vector_at_every_resolution() -> None:
    # At three times the resolution the centre of token i falls on the centre of token 3 i + 1.
    module = positions.create("sincos", DIM, GRID)
    fine = embedding(module, 3 * GRID[0], 3 * GRID[1])
    assert_close(fine[1::3, 1::3], embedding(module, *GRID), 1e-5, "threefold resolution")


def test_sincos_tells_all_tokens_apart() -> None:
    vectors = embedding(positions.create("sincos", DIM, GRID), 11, 7).flatten(0, 1)
    distances = torch.cdist(vectors, vectors) + 9 * torch.eye(len(vectors))
    assert distances.min() > 0.1


def test_learned_is_its_table_at_the_nominal_grid() -> None:
    module = learned()
    assert torch.equal(embedding(module, *GRID), module.table)


@pytest.mark.parametrize("grid", [(3, 5), (12, 20), (7, 9), (1, 1), (10, 6)])
def test_learned_keeps_a_constant_table_on_every_grid(grid: tuple[int, int]) -> None:
    module = positions.LearnedPositions(DIM, GRID)
    with torch.no_grad():
        module.table.copy_(torch.arange(DIM).float())
    assert_close(embedding(module, *grid), torch.arange(DIM).float().expand(*grid, -1), 1e-6, "constant table")


def test_learned_interpolates_linear_ramps_in_the_same_coordinates_as_sincos() -> None:
    # Bicubic interpolation reproduces a ramp away from the border.
    module = positions.LearnedPositions(DIM, GRID)
    with torch.no_grad():
        module.table.copy_(torch.arange(GRID[1]).float()[None, :, None].expand(*GRID, DIM))
    width = 2 * GRID[1]
    expected = (torch.arange(width) + 0.5) / 2 - 0.5
    assert_close(embedding(module, 12, width)[0, 5:-5, 0], expected[5:-5], 1e-5, "ramp")


def test_learned_interpolates_in_float32_and_its_table_learns_on_other_grids() -> None:
    module = learned()
    exact = embedding(module, 9, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(embedding(module, 9, 9), exact, 0, "under autocast")
    module(torch.zeros(2, 9, 9, DIM)).square().sum().backward()
    assert module.table.grad is not None
    assert (module.table.grad != 0).all()


@pytest.mark.parametrize("kind", ["sincos", "learned"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_type_of_the_tokens_is_kept(kind: str, dtype: torch.dtype) -> None:
    module = positions.create(kind, DIM, GRID).to(dtype)
    assert module(torch.zeros(1, 4, 5, DIM, dtype=dtype)).dtype == dtype


def test_none_adds_nothing() -> None:
    x = torch.randn(2, 3, 4, DIM)
    assert positions.create("none", DIM, GRID)(x) is x


def test_positions_differ_between_transposed_tokens() -> None:
    for kind in ("sincos", "learned"):
        module = learned() if kind == "learned" else positions.create(kind, DIM, (6, 6))
        square = embedding(module, 6, 6)
        assert_differs(square, square.transpose(0, 1), 0.1, kind)


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match=r"model.positions='sincoss' is not known.*did you mean 'sincos'"):
        positions.create("sincoss", DIM, GRID)
    with pytest.raises(InputError, match=r"model.dim=90 must be a multiple of 4.*did you mean 92"):
        positions.create("sincos", 90, GRID)
