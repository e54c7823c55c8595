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
    spiral, spiral_mirror,    clockwise inwards from the top left corner; counter-clockwise from the top right one, and
    spiral_flip               from the bottom left one
    hilbert                   Hilbert's curve from the top left to the top right corner of the smallest square of side
                              2^k around the grid, without what lies outside the grid
    gilbert                   a curve like Hilbert's that fills any rectangle, first along its longer side
    peano, morton             Peano's curve of thirds, and Z-order, cut like Hilbert's
    bit_reversal              bits of a token's number in reverse: a control, whose neighbours lie far apart
    window_S                  row by row in windows of S × S, which are visited row by row (LocalMamba, arXiv
                              2403.09338), for any S ≥ 1; the last windows hold what the grid leaves them
    window_snake_S            the same along snakes, in the windows and from window to window
    atrous_S                  one after another the S² grids of every S-th row and column
    atrous_turned_S           the same, grids of an odd first row column by column (EfficientVMamba,
                              arXiv 2403.09977)
    random_S                  tokens shuffled by seed S: a control without structure

Successive tokens are neighbours on the grid in snakes, zig-zags and spirals of any size; in `gilbert` too, but for one
diagonal step where the longer side is odd and the shorter one even; in `hilbert` on squares of side 2^k and in `peano`
on those of side 3^k. On other grids the cut curves jump.

No curve brings neighbours closer on average than rows do: on 14 × 14 tokens those beside and below a token are 7.5
steps away in rows and snakes, 8.8 in `gilbert`, 9.1 in `hilbert`. Half of them are one step away in curves, and some up
to 155 and 161 steps, where rows have no more than 14.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

import torch
from torch import Tensor

from operators.errors import InputError, check_number, nearest
from operators.runtime.tensors import ordinary_tensors
from operators.runtime.tracing import constant, untraced
from operators.scan import curves

REVERSED = "_r"
ZIGZAG8 = tuple(f"zigzag_{number}" for number in range(8))
_SIZED = re.compile(r"(\w+)_(\d+)")


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


def _windows(grid: Tensor, side: int) -> Tensor:
    row, column = _places(grid)
    return _by(grid, row // side, column // side, row % side, column % side)


def _window_snakes(grid: Tensor, side: int) -> Tensor:
    row, column = _places(grid)
    backwards, back = row // side % 2 == 1, row % side % 2 == 1
    window, within = column // side, column % side
    return _by(
        grid, row // side, torch.where(backwards, -window, window), row % side, torch.where(back, -within, within)
    )


def _atrous(grid: Tensor, stride: int) -> Tensor:
    row, column = _places(grid)
    return _by(grid, row % stride, column % stride)


def _atrous_turned(grid: Tensor, stride: int) -> Tensor:
    row, column = _places(grid)
    turned = row % stride % 2 == 1
    return _by(grid, row % stride, column % stride, torch.where(turned, column, row))


def _random(grid: Tensor, seed: int) -> Tensor:
    return grid.flatten()[torch.randperm(grid.numel(), generator=torch.Generator().manual_seed(seed))]


def _along(curve: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda grid: _by(grid, curve(*_places(grid)))


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
    "spiral_flip": lambda grid: _spiral(grid.flip(0)),
    "hilbert": _along(curves.hilbert),
    "gilbert": _along(curves.gilbert),
    "peano": _along(curves.peano),
    "morton": _along(curves.morton),
    "bit_reversal": _along(curves.bit_reversal),
}
_NUMBERED: dict[str, tuple[Callable[[Tensor, int], Tensor], int, tuple[int, ...]]] = {
    "window": (_windows, 1, (2, 7)),
    "window_snake": (_window_snakes, 1, (3,)),
    "atrous": (_atrous, 1, (2,)),
    "atrous_turned": (_atrous_turned, 1, (2,)),
    "random": (_random, 0, (0,)),
}
"""What draws each order whose name ends in a number, the least such number, and those that `names()` lists."""


def names() -> list[str]:
    """All orders; those with a number stand there with one or two, and serve any other."""
    numbered = [f"{kind}_{number}" for kind, (_, _, listed) in _NUMBERED.items() for number in listed]
    return [name + suffix for name in (*_ORDERS, *numbered) for suffix in ("", REVERSED)]


def base(name: str) -> tuple[str, bool]:
    """The order without `_r`, and whether there was one: a scan that runs backwards needs no reversed copy.

    Raises:
        InputError: no such order; names the nearest.
    """
    forward = name.removesuffix(REVERSED)
    if forward in _ORDERS:
        return forward, forward != name
    kind, number = _numbered(forward)
    if kind is None:
        listed = ", ".join((*_ORDERS, *(f"{kind}_S" for kind in _NUMBERED)))
        raise InputError(
            f"scan order {name!r} is not known: allowed are {listed} (S a number), "
            f"each also with {REVERSED!r}{nearest(name, names())}"
        )
    check_number(f"number in the scan order {kind}_S", number, least=_NUMBERED[kind][1], most=2**31 - 1, integer=True)
    return forward, forward != name


def _numbered(name: str) -> tuple[str | None, int]:
    """The kind and the number of an order with a number; no kind if it is none."""
    parts = _SIZED.fullmatch(name)
    return (parts[1], int(parts[2])) if parts is not None and parts[1] in _NUMBERED else (None, 0)


@untraced  # seen by the compiler only where a side is symbolic; it must not trace into a cache
@lru_cache(maxsize=512)
def _tokens(name: str, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    forward, backwards = base(name)
    for what, size in (("height", height), ("width", width)):
        check_number(f"{what} of a scan order", size, least=1, integer=True)
    with ordinary_tensors():
        grid = torch.arange(height * width).view(height, width)
        kind, number = _numbered(forward)
        order = _ORDERS[forward](grid) if kind is None else _NUMBERED[kind][0](grid, number)
        order = (order.flip(0) if backwards else order).contiguous()
        return order.to(device), order.argsort().to(device)


DIRECTIONS = ("start", "right", "left", "up", "down")
"""What `directions` numbers, from 0 on."""


@untraced
@lru_cache(maxsize=512)
def _moves(names: tuple[str, ...], height: int, width: int, device: torch.device) -> Tensor:
    with ordinary_tensors():
        rows = []
        for name in names:
            visited = _tokens(name, height, width, torch.device("cpu"))[0]
            down, right = (visited // width).diff(), (visited % width).diff()
            if ((down.abs() + right.abs()) > 1).any():
                raise InputError(
                    f"scan order {name!r} jumps on a grid of {height} × {width}: its steps have no directions"
                )
            moved = torch.where(down == 0, torch.where(right > 0, 1, 2), torch.where(down < 0, 3, 4))
            rows.append(torch.cat([moved.new_zeros(1), moved]))
        return torch.stack(rows).to(device)


@constant
def directions(names: tuple[str, ...], height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """For each step of each order, (orders, N), int64, in which of `DIRECTIONS` it came from the token before.

    Cached and shared.

    Raises:
        InputError: no such order (names the nearest), a side below 1, or an order whose steps are not all to a
            neighbour beside, above or below.
    """
    return _moves(names, height, width, torch.device(device))


@untraced
@lru_cache(maxsize=512)
def _tables(names: tuple[str, ...], height: int, width: int, device: torch.device) -> Tensor:
    with ordinary_tensors():
        return torch.stack([torch.stack(_tokens(name, height, width, device)) for name in names], dim=1)


@constant
def tables(names: tuple[str, ...], height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """`permutation` and `inverse` of several orders as one tensor (2, orders, N), int64. Cached and shared.

    The compiler takes one tensor of `permutation` into a graph, and one of this function.

    Raises:
        InputError: as `permutation`.
    """
    return _tables(names, height, width, torch.device(device))


class Ways:
    """The ways of several orders, none of them reversed, through one grid: `gather` and `scatter` by name."""

    def __init__(self, names: Iterable[str], height: int, width: int, device: torch.device) -> None:
        self.height, self.width = height, width
        self.curves = tuple(dict.fromkeys(name for name in names if name not in ("row", "col")))
        self.indices = tables(self.curves, height, width, device) if self.curves else None

    def gather(self, x: Tensor, name: str) -> Tensor:
        """As `gather` of (B, H, W, D)."""
        if self.indices is None or name not in self.curves:
            return gather(x, name)
        return x.flatten(1, 2).index_select(1, self.indices[0, self.curves.index(name)])

    def scatter(self, y: Tensor, name: str) -> Tensor:
        """As `scatter` of (B, N, D)."""
        if self.indices is None or name not in self.curves:
            return scatter(y, name, self.height, self.width)
        steps = self.indices[1, self.curves.index(name)]
        return y.index_select(1, steps).unflatten(1, (self.height, self.width))


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
