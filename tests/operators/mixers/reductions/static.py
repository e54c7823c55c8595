"""Arrows from mixers whose weights of tokens do not depend on the input: short convolutions, matrices over tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
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


def identity_matrix(linear, constant=0.0):
    """Make a map of tokens the identity, plus a constant."""
    set_to(torch.eye(len(linear.weight)), linear.weight)
    set_to(constant, linear.bias)


def resmlp_of_the_identity_matrix_is_the_identity():
    mixer = make("resmlp", grid=GRID)
    identity_matrix(mixer.core.matrix)
    assert_same_function(mixer, lambda x: 1 * x, image(*GRID), 1e-15)


def resmlp_of_a_stochastic_matrix_is_random():
    mixer, fixed = make("resmlp", grid=GRID), make("random", grid=GRID)
    set_to(fixed.core.matrix, mixer.core.matrix.weight)
    set_to(0.0, mixer.core.matrix.bias)
    assert_same_function(mixer, fixed, image(*GRID))


def resmlp_of_a_circulant_matrix_is_gfnet():
    """W_ij depends on the offset from j to i alone, on a torus; the filter is the same for all channels."""
    mixer, filtering = make("resmlp", grid=GRID), make("gfnet", grid=GRID, backend="fft")
    height, width = GRID
    kernel = image(*GRID, width=1)[0, ..., 0]
    number = torch.arange(height * width)
    row, column = number // width, number % width
    set_to(kernel[(row[:, None] - row) % height, (column[:, None] - column) % width], mixer.core.matrix.weight)
    set_to(0.0, mixer.core.matrix.bias)
    gain = torch.view_as_real(torch.fft.rfft2(kernel)).movedim(-1, 0)
    set_to(gain[..., None], filtering.core.filter)
    assert_same_function(mixer, filtering, image(*GRID), 1e-10)


def mlp_mixer_of_two_identities_is_gelu_of_tokens():
    """As many hidden numbers as tokens, each of which reads and writes one."""
    mixer = make("mlp_mixer", grid=GRID, hidden=GRID[0] * GRID[1])
    identity_matrix(mixer.core.first, 0.25)
    identity_matrix(mixer.core.last, -0.5)
    assert_same_function(mixer, lambda x: F.gelu(x + 0.25) - 0.5, image(*GRID))


def mlp_mixer_of_loud_biases_is_resmlp():
    """GELU(t) = t for t far above zero, so that W = W_2 W_1."""
    mixer, matrix = make("mlp_mixer", grid=GRID), make("resmlp", grid=GRID)
    first, last = mixer.core.first, mixer.core.last
    set_to(1e3, first.bias)
    set_to(last.weight @ first.weight, matrix.core.matrix.weight)
    set_to(last.weight @ first.bias + last.bias, matrix.core.matrix.bias)
    assert_same_function(mixer, matrix, image(*GRID), 1e-10)


def gmlp_at_its_start_is_a_feed_forward_network():
    """W = 0 and b = 1: of the field nothing is left, and the gate passes."""
    mixer = make("gmlp", grid=GRID, shell="published")
    set_to(0.0, mixer.core.matrix.weight)
    set_to(1.0, mixer.core.matrix.bias)
    assert_same_function(
        mixer, lambda x: mixer.shell.out_proj(F.gelu(mixer.shell.in_proj(x).chunk(2, -1)[1])), image(*GRID)
    )


def gmlp_of_the_identity_matrix_is_a_bilinear_feed_forward_network():
    mixer = make("gmlp", grid=GRID, shell="published")
    identity_matrix(mixer.core.matrix)

    def network(x):
        v, z = F.gelu(mixer.shell.in_proj(x)).chunk(2, -1)
        return mixer.shell.out_proj(z * mixer.core.norm(v))

    assert_same_function(mixer, network, image(*GRID))


ARROWS: list[tuple[str, Callable[[], None]]] = [
    ("separable convolution, K = delta -> StarReLU", sepconv_of_a_delta_is_starrelu),
    ("gated CNN, K = delta -> gated feed-forward network", gated_cnn_of_a_delta_is_a_gated_feed_forward_network),
    ("gated CNN, all channels -> depthwise convolution", gated_cnn_of_all_channels_is_conv),
    ("DiCo, W_c = 0 -> GELU of a depthwise convolution", dico_with_gates_of_one_half_is_gelu_of_conv),
    ("ResMLP, W = 1 -> identity", resmlp_of_the_identity_matrix_is_the_identity),
    ("ResMLP, stochastic W -> random matrix", resmlp_of_a_stochastic_matrix_is_random),
    ("ResMLP, circulant W -> GFNet", resmlp_of_a_circulant_matrix_is_gfnet),
    ("MLP-Mixer, W_1 = W_2 = 1 -> token-wise GELU", mlp_mixer_of_two_identities_is_gelu_of_tokens),
    ("MLP-Mixer, b_1 -> inf -> ResMLP of W_2 W_1", mlp_mixer_of_loud_biases_is_resmlp),
    ("gMLP, W = 0, b = 1 -> feed-forward network", gmlp_at_its_start_is_a_feed_forward_network),
    (
        "gMLP, W = 1, b = 0 -> bilinear feed-forward network",
        gmlp_of_the_identity_matrix_is_a_bilinear_feed_forward_network,
    ),
]
