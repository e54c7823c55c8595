"""Monarch matrices (arXiv 2204.00595): two block-diagonal matrices and a transposition of the tokens between them."""

from __future__ import annotations

from torch import Tensor

from operators.pde.propagators import permuted


def multiply(u: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """The Monarch matrix of each head times the tokens of u, (B, H, W, heads, D), real or complex.

    Args:
        u: the tokens (B, H, W, heads, D).
        columns: a matrix for every column of the grid (heads, W, H, H), which acts first: R of the paper.
        rows: a matrix for every row (heads, H, W, W): L of the paper.
    """
    images, height, width, heads, channels = u.shape
    across = permuted(u, 3, 2, 1, 0, 4).reshape(heads * width, height, images * channels)
    across = (columns.flatten(0, 1) @ across).view(heads, width, height, images, channels)
    along = permuted(across, 0, 2, 1, 3, 4).reshape(heads * height, width, images * channels)
    along = (rows.flatten(0, 1) @ along).view(heads, height, width, images, channels)
    return permuted(along, 3, 1, 2, 0, 4)


def dense(columns: Tensor, rows: Tensor) -> Tensor:
    """Dense matrices (heads, H W, H W) of row-major tokens: [i j, k m] holds rows[i, j, m] · columns[m, i, k]."""
    heads, width, height, _ = columns.shape
    made = rows[:, :, :, None] * columns.permute(0, 2, 3, 1)[:, :, None]
    return made.reshape(heads, height * width, height * width)
