"""Arrows from mixers whose tokens meet their neighbours only."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from tests.operators.mixers.drawn import assert_same_function, set_to
from tests.operators.mixers.reductions.linear import EXACT, bare, image, like


def a_window_of_the_whole_grid_is_softmax_attention():
    """Without the table; larger windows are clipped, and not shifted."""
    for window, shift in ((7, 0), (9, 4)):
        mixer = bare("window", heads=2, window=window, shift=shift)
        set_to(0.0, mixer.core.table)
        assert_same_function(mixer, like(bare("attention", heads=2), mixer), image(), EXACT)


def neighbours_of_the_whole_grid_are_softmax_attention():
    for window in (7, 9):
        mixer = bare("neighbourhood", heads=2, window=window)
        set_to(0.0, mixer.core.table)
        assert_same_function(mixer, like(bare("attention", heads=2), mixer), image(), EXACT)


def dilated_neighbourhoods_are_problems_of_their_own():
    """One for each class of rows and columns, with the same table."""
    for dilation in (2, 3):
        mixer = bare("neighbourhood", heads=2, window=2, dilation=dilation)
        plain = like(bare("neighbourhood", heads=2, window=2), mixer)

        def interleaved(x, step=dilation, plain=plain):
            y = torch.zeros_like(x)
            for row in range(step):
                for column in range(step):
                    y[:, row::step, column::step] = plain(x[:, row::step, column::step])
            return y

        assert_same_function(mixer, interleaved, image(), EXACT)


def deformable_convolution_as_it_starts_is_a_box_mean():
    """Zeros count beyond the border: sums of 3 × 3 are divided by nine everywhere."""
    for backend in ("grid_sample", "reference"):
        mixer = bare("dcn", scale=0, groups=2, backend=backend)

        def pooled(x):
            return F.avg_pool2d(x.movedim(-1, 1), 3, stride=1, padding=1).movedim(1, -1)

        assert_same_function(mixer, pooled, image(), EXACT)


ARROWS: list[tuple[str, Callable[[], None]]] = [
    ("NATTEN, k = n -> softmax attention", neighbours_of_the_whole_grid_are_softmax_attention),
    ("NATTEN, dilation d -> d^2 plain problems", dilated_neighbourhoods_are_problems_of_their_own),
    ("DCNv3, offset = mask = 0 -> 3 x 3 box mean", deformable_convolution_as_it_starts_is_a_box_mean),
    ("Swin, w = grid, bias 0 -> softmax attention", a_window_of_the_whole_grid_is_softmax_attention),
]
