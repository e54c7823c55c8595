"""Arrows from convolutions with what their papers put around them."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F

from tests.operators.mixers.drawn import assert_same_function, image, make, set_to

GRID = (5, 7)


def pass_the_centre(conv):
    """Make the filters of a depthwise convolution deltas, without a bias."""
    middle = conv.weight.shape[-1] // 2
    set_to(0.0, conv.weight, *([] if conv.bias is None else [conv.bias]))
    set_to(1.0, conv.weight[:, :, middle, middle])


def sepconv_of_a_delta_is_starrelu():
    mixer = make("sepconv", shell="published")
    pass_the_centre(mixer.core.conv)
    scale, shift = mixer.core.scale.detach(), mixer.core.shift.detach()
    inner, outer = mixer.shell.in_proj, mixer.shell.out_proj
    assert_same_function(mixer, lambda x: outer(scale * F.relu(inner(x)) ** 2 + shift), image(*GRID))


def gated_cnn_of_a_delta_is_a_gated_feed_forward_network():
    mixer = make("gated_cnn", shell="published")
    pass_the_centre(mixer.core.conv)

    def network(x):
        value, gate = mixer.shell.in_proj(x).chunk(2, -1)
        return mixer.shell.out_proj(F.gelu(gate) * value)

    assert_same_function(mixer, network, image(*GRID))


def gated_cnn_of_all_channels_is_conv():
    mixer, conv = make("gated_cnn", partial_ratio=1), make("conv", seed=1)
    conv.core.load_state_dict(mixer.core.state_dict())
    assert_same_function(mixer, conv, image(*GRID), 0)


def dico_with_gates_of_one_half_is_gelu_of_conv():
    mixer, conv = make("dico"), make("conv", kernel=3, seed=1)
    set_to(0.0, mixer.core.attention.weight, mixer.core.attention.bias)
    set_to(mixer.core.conv.weight, conv.core.conv.weight)
    set_to(mixer.core.conv.bias, conv.core.conv.bias)
    assert_same_function(mixer, lambda x: F.gelu(conv(x)) / 2, image(*GRID))


ARROWS: list[tuple[str, Callable[[], None]]] = [
    ("separable convolution, K = delta -> StarReLU", sepconv_of_a_delta_is_starrelu),
    ("gated CNN, K = delta -> gated feed-forward network", gated_cnn_of_a_delta_is_a_gated_feed_forward_network),
    ("gated CNN, all channels -> depthwise convolution", gated_cnn_of_all_channels_is_conv),
    ("DiCo, W_c = 0 -> GELU of a depthwise convolution", dico_with_gates_of_one_half_is_gelu_of_conv),
]
