"""Arrows from mixers whose tokens meet their neighbours only."""

from __future__ import annotations

from collections.abc import Callable

from tests.operators.mixers.drawn import assert_same_function, set_to
from tests.operators.mixers.reductions.linear import EXACT, bare, image, like


def a_window_of_the_whole_grid_is_softmax_attention():
    """Without the table; larger windows are clipped, and not shifted."""
    for window, shift in ((7, 0), (9, 4)):
        mixer = bare("window", heads=2, window=window, shift=shift)
        set_to(0.0, mixer.core.table)
        assert_same_function(mixer, like(bare("attention", heads=2), mixer), image(), EXACT)


ARROWS: list[tuple[str, Callable[[], None]]] = [
    ("Swin, w = grid, bias 0 -> softmax attention", a_window_of_the_whole_grid_is_softmax_attention),
]
