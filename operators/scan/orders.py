"""Scan orders: the ways to walk through all tokens of an H × W grid, one after another.

With the tokens numbered row by row, g[i, j] = i W + j, an order is a permutation p of 0 … N − 1: step t visits token
p[t]. A scan reads x[p], runs along it, and writes back through the inverse. Every name also exists with the suffix
`_r`, walked backwards.

    row, col                  row by row; column by column
    snake_row, snake_col      the same with every other line backwards (boustrophedon)
    zigzag_0 … zigzag_7       snakes from the corners top left, top right, bottom left, bottom right, along rows (even
                              numbers) or columns (odd ones): the schedule of ZigMa (arXiv 2403.13802). Numbers 0 and 1
                              are snake_row and snake_col
    diag, diag_mirror         antidiagonals i + j = const in turn up and down (JPEG); from the top right corner
    spiral, spiral_mirror     clockwise inwards from the top left corner; counter-clockwise from the top right one
    window_S                  row by row in windows of S × S, which are visited row by row (LocalMamba, arXiv
                              2403.09338), for any S ≥ 1; the last windows hold what the grid leaves them
    hilbert                   Hilbert's curve from the top left to the top right corner of the smallest square of side
                              2^k around the grid, without what lies outside the grid

Successive tokens are neighbours on the grid in snakes, zig-zags and spirals of any size, and in `hilbert` on squares of
side 2^k; on other grids the cut curve jumps.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from operators.errors import InputError, check_number, nearest
from operators.runtime.tensors import ordinary_tensors
from operators.runtime.tracing import constant, untraced

REVERSED = "_r"
WINDOWS = (2, 7)
"""Sides of the windows among `names()`: those of LocalMamba. `window_S` serves any other side S as well."""
ZIGZAG8 = tuple(f"zigzag_{number}" for number in range(8))
_WINDOW = re.compile(r"window_(\d+)")


def _row(grid: Tensor) -> Tensor:
    return grid.flatten()


def _snake(grid: Tensor) -> Tensor:
    turned = grid.clone()
    turned[1::2] = grid[1::2].flip(1)
    return turned.flatten()


def _diagonals(grid: Tensor) -> Tensor:
    row, column = _places(grid)
    diagonal = row + column
    return _by(grid, diagonal, torch.where(diagonal % 2 == 0, -row, row))


def _spiral(grid: Tensor) -> Tensor:
    rings = []
    while grid.numel():
        rings.append(grid[0])
        grid = grid[1:].rot90()
    return torch.cat(rings)


def _hilbert(grid: Tensor) -> Tensor:
    """By the place on the curve, bit by bit: which quarter of the square, and in that quarter's own frame again."""
    row, column = _places(grid)
    side = 1 << (max(grid.shape) - 1).bit_length()
    place = torch.zeros_like(row)
    while side > 1:
        side //= 2
        low, right = row // side, column // side
        place += side**2 * (3 * right ^ low)
        row, column = row % side, column % side
        # The curve enters the first quarter transposed, and the last one transposed about the other diagonal.
        turned_row = torch.where(right == 1, side - 1 - column, column)
        turned_column = torch.where(right == 1, side - 1 - row, row)
        row, column = torch.where(low == 1, row, turned_row), torch.where(low == 1, column, turned_column)
    return _by(grid, place)


def _windows(grid: Tensor, side: int) -> Tensor:
    row, column = _places(grid)
    return _by(grid, row // side, column // side, row % side, column % side)


def _places(grid: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of each token."""
    rows, columns = (torch.arange(size, device=grid.device) for size in grid.shape)
    row, column = torch.meshgrid(rows, columns, indexing="ij")
    return row, column


def _by(grid: Tensor, *keys: Tensor) -> Tensor:
    """The tokens sorted by the first key, those equal in it by the second, and so on."""
    order = torch.arange(grid.numel(), device=grid.device)
    for key in reversed(keys):
        order = order[key.flatten()[order].argsort(stable=True)]
    return grid.flatten()[order]


def _zigzag(number: int) -> Callable[[Tensor], Tensor]:
    corner, along_columns = divmod(number, 2)
    flips = [axis for axis, flipped in ((0, corner >= 2), (1, corner % 2 == 1)) if flipped]
    return lambda grid: _snake(grid.flip(flips).T if along_columns else grid.flip(flips))


_ORDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "row": _row,
    "col": lambda grid: _row(grid.T),
    "snake_row": _snake,
    "snake_col": lambda grid: _snake(grid.T),
    **{name: _zigzag(number) for number, name in enumerate(ZIGZAG8)},
    "diag": _diagonals,
    "diag_mirror": lambda grid: _diagonals(grid.flip(1)),
    "spiral": _spiral,
    "spiral_mirror": lambda grid: _spiral(grid.flip(1)),
    "hilbert": _hilbert,
}


def names() -> list[str]:
    """All orders; `window_S` stands there with the sides `WINDOWS`, and serves any other."""
    forward = [*_ORDERS, *(f"window_{side}" for side in WINDOWS)]
    return [name + suffix for name in forward for suffix in ("", REVERSED)]


def base(name: str) -> tuple[str, bool]:
    """The order without `_r`, and whether there was one: a scan that runs backwards needs no reversed copy.

    Raises:
        InputError: no such order; names the nearest.
    """
    forward = name.removesuffix(REVERSED)
    window = _WINDOW.fullmatch(forward)
    if window is not None:
        check_number("side of the windows of a scan order", int(window[1]), least=1, integer=True)
    elif forward not in _ORDERS:
        listed = ", ".join(_ORDERS)
        raise InputError(
            f"scan order {name!r} is not known: allowed are {listed} and window_S (S >= 1), "
            f"each also with {REVERSED!r}{nearest(name, names())}"
        )
    return forward, forward != name


@untraced  # seen by the compiler only where a side is symbolic; it must not trace into a cache
@lru_cache(maxsize=512)
def _tokens(name: str, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    forward, backwards = base(name)
    for what, size in (("height", height), ("width", width)):
        check_number(f"{what} of a scan order", size, least=1, integer=True)
    with ordinary_tensors():
        grid = torch.arange(height * width).view(height, width)
        window = _WINDOW.fullmatch(forward)
        order = _ORDERS[forward](grid) if window is None else _windows(grid, int(window[1]))
        order = (order.flip(0) if backwards else order).contiguous()
        return order.to(device), order.argsort().to(device)


@constant
def permutation(name: str, height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Tokens (N,), int64, in the order in which `name` visits them. Cached and shared: not to be written to.

    Raises:
        InputError: no such order (names the nearest), or a side below 1.
    """
    return _tokens(name, height, width, torch.device(device))[0]


@constant
def inverse(name: str, height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Steps (N,), int64, at which `name` visits each token; `permutation`'s inverse. Cached and shared like it.

    Raises:
        InputError: as `permutation`.
    """
    return _tokens(name, height, width, torch.device(device))[1]


def gather(x: Tensor, name: str) -> Tensor:
    """The tokens of x (B, H, W, D) as a sequence (B, N, D) in the order `name`.

    `row` is a view where x is contiguous, `col` where x is stored column by column; otherwise `col` is one strided copy
    without an index. Reversed orders are copies, because torch has no negative strides: a scan that can run backwards
    takes `base(name)` instead.

    Raises:
        InputError: no such order; names the nearest.
    """
    forward, backwards = base(name)
    if forward in ("row", "col"):
        sequence = (x if forward == "row" else x.transpose(1, 2)).flatten(1, 2)
        return sequence.flip(1) if backwards else sequence
    _, height, width = x.shape[:3]
    order = permutation(name, height, width, x.device)
    return x.flatten(1, 2).index_select(1, order)


def scatter(y: Tensor, name: str, height: int, width: int) -> Tensor:
    """The sequence y (B, N, D) in the order `name` back on its grid, (B, H, W, D): undoes `gather`.

    A view for `row` and `col`.

    Raises:
        InputError: no such order (names the nearest), or a length other than height × width.
    """
    if y.shape[1] != height * width:
        raise InputError(f"a sequence of {y.shape[1]} tokens does not fill a grid of {height} × {width}")
    forward, backwards = base(name)
    if forward == "row":
        return (y.flip(1) if backwards else y).unflatten(1, (height, width))
    if forward == "col":
        return (y.flip(1) if backwards else y).unflatten(1, (width, height)).transpose(1, 2)
    steps = inverse(name, height, width, y.device)
    return y.index_select(1, steps).unflatten(1, (height, width))
