"""Curves through a grid: where on the curve each token of an H × W grid lies; `operators.scan.orders` names them.

A curve of squares of side 2^k or 3^k is drawn on the smallest such square around the grid, and what lies outside is
left out. Each function takes the row and the column of the tokens, int64 (H, W), and gives their places, which grow
along the curve.
"""

from __future__ import annotations

from torch import Tensor, where, zeros_like


def hilbert(row: Tensor, column: Tensor) -> Tensor:
    """Hilbert's, bit by bit: which quarter of the square, and in that quarter's own frame again."""
    side = 1 << (max(row.shape) - 1).bit_length()
    place = zeros_like(row)
    while side > 1:
        side //= 2
        low, right = row // side, column // side
        place += side**2 * (3 * right ^ low)
        row, column = row % side, column % side
        # The curve enters the first quarter transposed, and the last one transposed about the other diagonal.
        turned_row = where(right == 1, side - 1 - column, column)
        turned_column = where(right == 1, side - 1 - row, row)
        row, column = where(low == 1, row, turned_row), where(low == 1, column, turned_column)
    return place


def morton(row: Tensor, column: Tensor) -> Tensor:
    """Morton's (Z-order): the bits of row and column in turn, the row's first."""
    place = zeros_like(row)
    for bit in range((max(row.shape) - 1).bit_length()):
        place += ((row >> bit & 1) << 2 * bit + 1) + ((column >> bit & 1) << 2 * bit)
    return place


def peano(row: Tensor, column: Tensor) -> Tensor:
    """Peano's: digits to base 3 of row and column in turn, each turned around by the parity of the other axis' sum."""
    side = 1
    while side < max(row.shape):
        side *= 3
    place, rows, columns = zeros_like(row), zeros_like(row), zeros_like(row)
    while side > 1:
        side //= 3
        down = where(columns % 2 == 0, row // side % 3, 2 - row // side % 3)
        rows += down
        along = where(rows % 2 == 0, column // side % 3, 2 - column // side % 3)
        columns += along
        place = 9 * place + 3 * down + along
    return place


def bit_reversal(row: Tensor, column: Tensor) -> Tensor:
    """The number of a token, row by row, with its bits in reverse: neighbours are as far apart as can be."""
    number = row * row.shape[1] + column
    bits = (row.numel() - 1).bit_length()
    place = zeros_like(number)
    for bit in range(bits):
        place += (number >> bit & 1) << bits - 1 - bit
    return place


def gilbert(row: Tensor, column: Tensor) -> Tensor:
    """A generalised Hilbert curve for any rectangle, from the top left along its longer side (J. Červený, gilbert).

    Successive tokens are neighbours, but for one diagonal step where the longer side is odd and the shorter one even.
    """
    height, width = row.shape
    longer, shorter = (width + 0j, height * 1j) if width >= height else (height * 1j, width + 0j)
    place = zeros_like(row)
    for step, cell in enumerate(_rectangle(0j, longer, shorter)):
        place[int(cell.imag), int(cell.real)] = step
    return place


def _rectangle(corner: complex, a: complex, b: complex) -> list[complex]:
    """Cells, column + i row, of a curve from `corner` to the end of side a, through the rectangle of sides a and b.

    A long one is cut across into two such curves. Any other goes up along half of b, through all of a, and down again.
    The parts are of even length where that is possible, so that their curves end where the next ones begin.
    """
    length, breadth = int(abs(a)), int(abs(b))
    along, across = a / length, b / breadth
    if breadth == 1:
        return [corner + step * along for step in range(length)]
    if length == 1:
        return [corner + step * across for step in range(breadth)]
    half_length, half_breadth = length // 2, breadth // 2
    if 2 * length > 3 * breadth:
        half_length += half_length % 2 if length > 2 else 0
        rest = length - half_length
        return _rectangle(corner, half_length * along, b) + _rectangle(corner + half_length * along, rest * along, b)
    half_breadth += half_breadth % 2 if breadth > 2 else 0
    top = half_breadth * across
    back = corner + (length - 1) * along + top - across
    return (
        _rectangle(corner, top, half_length * along)
        + _rectangle(corner + top, a, b - top)
        + _rectangle(back, -top, (half_length - length) * along)
    )
