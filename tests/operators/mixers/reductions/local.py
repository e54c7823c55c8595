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
        assert_same_function(mixer, interleaved(dilation, plain), image(), EXACT)


def interleaved(step, plain):
    """What `plain` makes of each class of rows and columns modulo `step`."""

    def function(x):
        y = torch.zeros_like(x)
        for row in range(step):
            for column in range(step):
                y[:, row::step, column::step] = plain(x[:, row::step, column::step])
        return y

    return function


def downsampled_attention_is_problems_of_its_own():
    """Without convolution, which sees all classes; on sides that the factor divides and others."""
    for factor in (2, 3):
        mixer = bare("udit", heads=2, factor=factor, kernel=1)
        plain = like(bare("udit", heads=2, factor=1, kernel=1), mixer)
        assert_same_function(mixer, interleaved(factor, plain), image(), EXACT)


def downsampled_attention_that_does_not_look_is_a_mean():
    mixer = bare("udit", heads=2)
    set_to(-50.0, mixer.core.scale)
    assert_same_function(mixer, interleaved(2, lambda x: x.mean((1, 2), keepdim=True).expand_as(x)), image(), 1e-11)


def halo_blocks_that_see_the_grid_are_softmax_attention():
    for block, halo in ((7, 0), (9, 2), (2, 7)):
        mixer = bare("halo", heads=2, block=block, halo=halo, bias=True, relative=False)
        assert_same_function(mixer, like(bare("attention", heads=2), mixer), image(), EXACT)


def halo_blocks_without_a_halo_are_windows():
    """Of any grid: what is padded is not seen."""
    mixer = bare("halo", heads=2, block=3, halo=0, bias=True, relative=False)
    plain = bare("window", heads=2, window=3, shift=0, padding="masked", position_bias=False)
    assert_same_function(mixer, like(plain, mixer), image(), EXACT)


def halo_blocks_of_one_token_are_neighbourhoods_inside():
    """At the border a neighbourhood moves inwards, and a halo is cut off."""
    mixer = bare("halo", heads=2, block=1, halo=1, bias=True, relative=False)
    plain = like(bare("neighbourhood", heads=2, window=3, position_bias=False), mixer)
    inside = (slice(None), slice(1, -1), slice(1, -1))
    assert_same_function(lambda x: mixer(x)[inside], lambda x: plain(x)[inside], image(), EXACT)


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
    ("Halo, b = grid, tables 0 -> softmax attention", halo_blocks_that_see_the_grid_are_softmax_attention),
    ("Halo, h = 0, tables 0 -> Swin, shift and bias 0", halo_blocks_without_a_halo_are_windows),
    ("Halo, b = 1, tables 0 -> NATTEN inside", halo_blocks_of_one_token_are_neighbourhoods_inside),
    ("U-DiT, factor f -> f^2 plain problems", downsampled_attention_is_problems_of_its_own),
    ("U-DiT, l = -inf -> mean of each class", downsampled_attention_that_does_not_look_is_a_mean),
]
