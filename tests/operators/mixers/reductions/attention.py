"""Arrows from softmax attention."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tests.operators.mixers.drawn import assert_same_function, set_to
from tests.operators.mixers.reductions.linear import EXACT, WIDTH, bare, image, like, mean


def attention_without_queries_is_the_mean():
    for backend in ("sdpa", "reference"):
        mixer = bare("attention", heads=2, backend=backend)
        set_to(0.0, mixer.core.qk.weight[:WIDTH], mixer.core.qk.bias[:WIDTH])
        assert_same_function(mixer, mean, image(), EXACT)


def retention_of_equal_tokens_is_a_separable_exponential_blur():
    """q = k = 0: γ^|Δrow| γ^|Δcolumn|, each row of weights over its sum; both forms are the same then."""
    blurs = []
    for length in (5, 7):
        place = torch.arange(length, dtype=torch.float64)
        weights = (1 - 2**-1.5) ** (place[:, None] - place).abs()
        blurs.append(weights / weights.sum(-1, keepdim=True))
    for form in ("full", "decomposed"):
        mixer = bare("retention_2d", heads=1, slowest=1.5, form=form)
        set_to(0.0, mixer.core.qk.weight, mixer.core.qk.bias)
        assert_same_function(mixer, lambda x: torch.einsum("ir,jc,brcd->bijd", *blurs, x), image(), EXACT)


def retention_without_decay_is_softmax_attention():
    mixer = bare("retention_2d", heads=2, slowest=64, rope=False)
    assert_same_function(mixer, like(bare("attention", heads=2), mixer), image(), EXACT)


def decomposed_retention_without_decay_is_axial_attention():
    mixer = bare("retention_2d", heads=2, slowest=64, rope=False, form="decomposed")
    core = like(bare("attention", heads=2), mixer).core

    def axial(x):
        rows = torch.stack([core(x[:, i : i + 1], x=x[:, i : i + 1])[:, 0] for i in range(5)], dim=1)
        columns = [core(rows[:, :, j : j + 1], x=x[:, :, j : j + 1])[:, :, 0] for j in range(7)]
        return torch.stack(columns, dim=2)

    assert_same_function(mixer, axial, image(), EXACT)


def keys_of_the_same_grid_are_softmax_attention():
    """Queries are the field there, and values here."""
    for backend in ("sdpa", "reference"):
        mixer, plain = bare("spatial_reduction", heads=2, reduction=1, backend=backend), bare("attention", heads=2)
        (keys, values), (weight, bias) = mixer.core.kv.weight.chunk(2), (plain.core.qk.weight, plain.core.qk.bias)
        with torch.no_grad():
            values.copy_(torch.eye(WIDTH))
            mixer.core.kv.bias.zero_()
            weight.copy_(torch.cat([torch.eye(WIDTH), keys]))
            bias.zero_()
        assert_same_function(mixer, plain, image(), EXACT)


def one_key_is_what_all_tokens_read():
    """All get the same, an affine map of the normalised, convolved image."""
    mixer = bare("spatial_reduction", heads=2, reduction=8)

    def read(x):
        padded = torch.nn.functional.pad(x, (0, 0, 0, 8 - x.shape[2], 0, 8 - x.shape[1]))
        z = torch.einsum("brcd,edrc->be", padded, mixer.core.reduce.weight) + mixer.core.reduce.bias
        z = torch.nn.functional.layer_norm(z, (WIDTH,), mixer.core.norm.weight, mixer.core.norm.bias, 1e-6)
        return mixer.core.kv(z)[:, None, None, WIDTH:].expand_as(x)

    assert_same_function(mixer, read, image(), EXACT)


ARROWS: list[tuple[str, Callable[[], None]]] = [
    ("softmax attention, q = 0 -> global mean", attention_without_queries_is_the_mean),
    (
        "RMT, q = k = 0, both forms -> separable exponential blur",
        retention_of_equal_tokens_is_a_separable_exponential_blur,
    ),
    ("RMT, gamma = 1 -> softmax attention", retention_without_decay_is_softmax_attention),
    ("RMT decomposed, gamma = 1 -> axial attention", decomposed_retention_without_decay_is_axial_attention),
    ("PVT, r = 1 -> softmax attention", keys_of_the_same_grid_are_softmax_attention),
    ("PVT, r = grid -> affine map of the image", one_key_is_what_all_tokens_read),
]
