"""How a boundary extends the input: one word for both axes, or one for each; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from operators.errors import InputError, check_choice

BOUNDARIES = ("periodic", "neumann", "dirichlet", "absorbing")
Boundary = str | tuple[str, str]
"""A word of `BOUNDARIES`, or two different ones: of the row axis and of the column axis."""
SIGNS = {"periodic": 0, "neumann": 1, "dirichlet": -1}
"""Of the image behind the edge, by boundaries that extend an axis by images of itself."""


def check_boundary(what: str, value: Any) -> Boundary:
    """Return the boundary that `value` means: a word, or a list of two, [row axis, column axis].

    Raises:
        InputError: anything else.
    """
    if not isinstance(value, str) and (not isinstance(value, Sequence) or len(value) != 2):
        listed = ", ".join(BOUNDARIES)
        raise InputError(f"{what}={value!r} must be one of {listed}, or two of them: [row axis, column axis]")
    words = [value] if isinstance(value, str) else list(value)
    for word in words:
        check_choice(what, word, BOUNDARIES)
    return words[0] if len(set(words)) == 1 else (words[0], words[1])


def by_axis(boundary: Boundary) -> tuple[str, str]:
    """The words of the row axis and of the column axis."""
    return (boundary, boundary) if isinstance(boundary, str) else boundary


def written(boundary: Boundary) -> str:
    """The boundary as a configuration writes it."""
    return boundary if isinstance(boundary, str) else f"[{', '.join(boundary)}]"


def extended(height: int, width: int, boundary: Boundary) -> tuple[int, int]:
    """Sides of the extended grid: twice as long along an axis that is not periodic."""
    rows, columns = (
        n if word == "periodic" else 2 * n for n, word in zip((height, width), by_axis(boundary), strict=True)
    )
    return rows, columns
