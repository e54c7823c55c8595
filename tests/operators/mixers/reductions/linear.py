"""Arrows from linear attention."""

from __future__ import annotations

from collections.abc import Callable

import torch

import operators
from operators.testing.cases import noise, run
from operators.testing.checks import assert_close

WIDTH = 8


def bare(name, *, scale=0.5, **params):
    """A mixer of random weights in the bare shell."""
    mixer = operators.create(name, WIDTH, grid=(5, 7), shell=operators.BARE, **params).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return mixer


def image():
    return noise(2, 5, 7, WIDTH, dtype=torch.float64, seed=9)


def like(mixer, other):
    """`mixer` with the parameters of `other` that have its names."""
    mixer.load_state_dict(other.state_dict(), strict=False)
    return mixer


def large_features(mixer):
    """Keeps ε, which differs between kinds of linear attention, out of sight."""
    with torch.no_grad():
        mixer.core.qk.bias.fill_(1e4)
    return mixer


def mlla_without_positions_is_linear_attention():
    mixer = large_features(bare("mlla", heads=2, rope=False))
    assert_close(run(mixer, image()), run(like(bare("linear_attention", heads=2), mixer), image()), 1e-13, "y")


def mlla_of_constant_features_is_the_mean():
    mixer, x = large_features(bare("mlla", heads=2, rope=False)), image()
    with torch.no_grad():
        mixer.core.qk.weight.zero_()
    assert_close(run(mixer, x), x.mean((1, 2), keepdim=True).expand_as(x), 1e-13, "y")


def rala_of_uniform_weights_is_mlla():
    mixer = bare("rala", heads=2, rope=False)
    mixer.core.weights = lambda q, k: torch.ones_like(k[..., :1])
    assert_close(run(mixer, image()), run(like(bare("mlla", heads=2, rope=False), mixer), image()), 1e-14, "y")


def relu_attention_of_width_one_is_an_average_for_those_who_ask():
    mixer, x = bare("linear_attention", heads=WIDTH, feature_map="relu"), image()
    with torch.no_grad():
        q, k = mixer.core.qk(x).relu().chunk(2, dim=-1)
    average = (k * x).sum((1, 2), keepdim=True) / k.sum((1, 2), keepdim=True)
    assert_close(run(mixer, x), average * (q > 0), 1e-13, "y")


def linear_and_softmax_attention_to_equal_keys_are_the_same():
    mixers = bare("linear_attention", heads=2), bare("attention", heads=2)
    for mixer in mixers:
        with torch.no_grad():
            mixer.core.qk.weight[WIDTH:] = 0
    assert_close(run(mixers[0], image()), run(mixers[1], image()), 1e-13, "y")


ARROWS: list[tuple[str, Callable[[], None]]] = [
    ("mlla, no rope -> linear_attention", mlla_without_positions_is_linear_attention),
    ("mlla, constant features -> mean", mlla_of_constant_features_is_the_mean),
    ("rala, uniform weights -> mlla", rala_of_uniform_weights_is_mlla),
    ("linear_attention relu, heads of width 1 -> mean", relu_attention_of_width_one_is_an_average_for_those_who_ask),
    ("linear_attention, equal keys -> attention", linear_and_softmax_attention_to_equal_keys_are_the_same),
]
