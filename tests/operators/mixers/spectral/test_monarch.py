import pytest
import torch

import operators
from operators import InputError
from operators.spectral.monarch import dense
from operators.testing.cases import noise, run_with_gradients
from operators.testing.checks import assert_close, assert_differs

WIDTH = 4


def make(*grid, seed=0, **params):
    torch.manual_seed(seed)
    return operators.create("monarch", WIDTH, grid=grid, shell="published", heads=2, **params).double()


def image(*grid):
    return noise(2, *grid, WIDTH, dtype=torch.float64)


def definition(core, x):
    """Columns one by one, then rows one by one."""
    height, width = x.shape[1:3]
    heads = []
    for head, part in enumerate(x.chunk(core.heads, -1)):
        across = torch.stack([core.columns[head, j] @ part[:, :, j] for j in range(width)], 2)
        heads.append(torch.stack([core.rows[head, i] @ across[:, i] for i in range(height)], 1))
    return torch.cat(heads, -1)


@pytest.mark.parametrize("grid", [(3, 5), (4, 4), (1, 2)], ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid):
    mixer, x = make(*grid), image(*grid)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: definition(mixer.core, x))
    assert_close(y, expected, 1e-13, "y")
    for name, gradient in gradients.items():
        assert_close(gradient, wanted[name], 1e-13, f"gradient of {name}")


def test_it_is_two_block_diagonal_matrices_and_two_transpositions():
    """P L P^T R on tokens that are numbered column by column."""
    height, width = grid = 3, 5
    mixer, x = make(*grid), image(*grid)
    transposition = torch.arange(height * width).view(width, height).mT.flatten()
    for head in range(2):
        right = torch.block_diag(*mixer.core.columns[head])
        left = torch.block_diag(*mixer.core.rows[head])
        permute = torch.eye(height * width, dtype=torch.float64)[transposition]
        matrix = permute.mT @ left @ permute @ right
        tokens = x[..., 2 * head : 2 * head + 2].transpose(1, 2).flatten(1, 2)
        expected = (matrix @ tokens).view(2, width, height, 2).transpose(1, 2)
        assert_close(mixer(x)[..., 2 * head : 2 * head + 2], expected, 1e-13, "y")
    assert_close(mixer.inspect(x)["map"], dense(mixer.core.columns, mixer.core.rows), 0, "map")


def test_identities_change_nothing():
    mixer, x = make(3, 5), image(3, 5)
    with torch.no_grad():
        mixer.core.columns.copy_(torch.eye(3).expand(2, 5, 3, 3))
        mixer.core.rows.copy_(torch.eye(5).expand(2, 3, 5, 5))
    assert_close(mixer(x), x, 1e-14, "y")


def test_a_product_of_two_is_in_general_none():
    """In a Monarch matrix every block [i, :, :, m] is of rank one."""
    first, second = (dense(make(3, 4, seed=s).core.columns, make(3, 4, seed=s).core.rows)[0] for s in (0, 1))

    def rank(matrix):
        blocks = matrix.view(3, 4, 3, 4).permute(0, 3, 1, 2)
        return int(torch.linalg.matrix_rank(blocks).max())

    assert rank(first) == rank(second) == 1
    assert rank(first @ second) > 1


def test_heads_have_matrices_of_their_own_and_channels_of_a_head_share_one():
    mixer, x = make(3, 4), image(3, 4)
    alike = x[..., :1].expand_as(x)
    y = mixer(alike)
    assert_close(y[..., 0], y[..., 1], 1e-13, "channels of a head")
    assert_differs(y[..., 0], y[..., 2], 1e-2, "channels of two heads")


def test_counts_and_start():
    mixer = operators.create("monarch", 8, grid=(9, 16), shell="published", heads=2)
    assert mixer.cost(9, 16).parameters == 2 * 9 * 16 * (9 + 16)
    assert mixer.cost(9, 16).mixing_macs == 8 * 9 * 16 * (9 + 16)
    assert 0.32 < mixer.core.columns.abs().max() <= 1 / 3
    assert 0.24 < mixer.core.rows.abs().max() <= 1 / 4


def test_what_cannot_be_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"mixer\.heads=3 must divide the width 8; nearest: 2 and 4"):
        operators.create("monarch", 8, grid=(3, 4), heads=3)
    with pytest.raises(InputError, match="mixer monarch depends on the grid"):
        operators.create("monarch", 8)
