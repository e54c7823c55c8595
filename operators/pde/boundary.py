"""How a boundary extends the input: one word for all axes, or one for each; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from operators.errors import InputError, check_choice

BOUNDARIES = ("periodic", "neumann", "dirichlet", "absorbing")
Boundary = str | tuple[str, ...]
"""A word of `BOUNDARIES`, or one for each axis, which are not all the same."""
LISTS = {2: "two of them: [row axis, column axis]", 3: "three of them: [frame axis, row axis, column axis]"}
"""By the number of axes, what stands for a word for each."""
SIGNS = {"periodic": 0, "neumann": 1, "dirichlet": -1}
"""Of the image behind the edge, by boundaries that extend an axis by images of itself."""


def check_boundary(what: str, value: Any, axes: int | None = 2) -> Boundary:
    """Return the boundary that `value` means: a word, or a list with a word for each of `axes` axes; None: of any.

    Raises:
        InputError: anything else.
    """
    lists = LISTS if axes is None else {axes: LISTS[axes]}
    if not isinstance(value, str) and (not isinstance(value, Sequence) or len(value) not in lists):
        raise InputError(f"{what}={value!r} must be one of {', '.join(BOUNDARIES)}, or {', or '.join(lists.values())}")
    words = [value] if isinstance(value, str) else list(value)
    for word in words:
        check_choice(what, word, BOUNDARIES)
    return words[0] if len(set(words)) == 1 else tuple(words)


def by_axis(boundary: Boundary, axes: int = 2) -> tuple[str, ...]:
    """The word of each axis."""
    return (boundary,) * axes if isinstance(boundary, str) else boundary


def written(boundary: Boundary) -> str:
    """The boundary as a configuration writes it."""
    return boundary if isinstance(boundary, str) else f"[{', '.join(boundary)}]"


def extended(grid: Sequence[int], boundary: Boundary) -> tuple[int, ...]:
    """Sides of the extended grid: twice as long along an axis that is not periodic."""
    words = by_axis(boundary, len(grid))
    return tuple(n if word == "periodic" else 2 * n for n, word in zip(grid, words, strict=True))
