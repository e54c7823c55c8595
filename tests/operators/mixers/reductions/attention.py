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


ARROWS: list[tuple[str, Callable[[], None]]] = [
    ("softmax attention, q = 0 -> global mean", attention_without_queries_is_the_mean),
    (
        "RMT, q = k = 0, both forms -> separable exponential blur",
        retention_of_equal_tokens_is_a_separable_exponential_blur,
    ),
    ("RMT, gamma = 1 -> softmax attention", retention_without_decay_is_softmax_attention),
    ("RMT decomposed, gamma = 1 -> axial attention", decomposed_retention_without_decay_is_axial_attention),
]
