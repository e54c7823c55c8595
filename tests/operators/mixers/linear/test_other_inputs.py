"""Mixers of the linear family on videos, and reading from the tokens of a context: against the definition in loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import operators
from operators.linear import products
from operators.linear import products_reference as reference
from operators.testing.cases import run_with_gradients
from operators.testing.checks import assert_close
from tests.operators.mixers.linear.plain import average, bare, elu, image, relu

LENGTHS = (5, 2)
"""Tokens of each image's context; five places are kept for either."""


def heads(core: Any, x: Tensor, context: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """q of tokens x (N, C), k and v of tokens of a context (M, C), by heads; the shell is bare."""
    half = core.heads * core.key_width
    bias = torch.zeros(2 * half, dtype=x.dtype) if core.qk.bias is None else core.qk.bias
    q = x @ core.qk.weight[:half].T + bias[:half]
    k = context @ core.qk.weight[half:].T + bias[half:]
    return q.chunk(core.heads, -1), k.chunk(core.heads, -1), context.chunk(core.heads, -1)


def linear_attention(core: Any, x: Tensor, context: Tensor) -> Tensor:
    phi = {"elu": elu, "relu": relu}[core.feature_map]
    parts = zip(*heads(core, x, context), strict=True)
    return torch.cat([average(phi(q), phi(k), v, 1e-15) for q, k, v in parts], dim=-1)


def lightnet(core: Any, x: Tensor, context: Tensor) -> Tensor:
    outputs = []
    for q, k, v in zip(*heads(core, x, context), strict=True):
        state, total = torch.zeros(k.shape[1], v.shape[1], dtype=x.dtype), torch.zeros(k.shape[1], dtype=x.dtype)
        for key, value in zip(k.exp(), v, strict=True):
            state, total = state + torch.outer(key, value), total + key
        outputs.append(torch.stack([query / (1 + (-query).exp()) @ (state / total[:, None]) for query in q]))
    return torch.cat(outputs, dim=-1)


def homm(core: Any, x: Tensor, context: Tensor) -> Tensor:
    total = torch.zeros(context.shape[1], dtype=x.dtype)
    for token in context:
        g = (token * (1 + torch.erf(token / math.sqrt(2))) / 2).chunk(core.order)
        total = total + torch.cat([math.prod(g[1 : p + 1], start=g[0]) for p in range(core.order)])
    gates = [1 / (1 + (-(core.gate.weight @ token + core.gate.bias)).exp()) for token in x]
    return torch.stack(gates) * total / len(context)


Definition = Callable[[Any, Tensor, Tensor], Tensor]
MIXERS: list[tuple[str, dict[str, Any], Definition]] = [
    ("linear_attention", {"heads": 2}, linear_attention),
    ("linear_attention", {"heads": 4, "feature_map": "relu"}, linear_attention),
    ("lightnet", {"heads": 2, "key_width": 3}, lightnet),
    ("lightnet", {"heads": 4, "bias": False}, lightnet),
    ("homm", {"order": 1}, homm),
    ("homm", {"order": 4}, homm),
]
NAMED = [pytest.param(*row, id=f"{row[0]}-{row[1]}") for row in MIXERS]


@pytest.mark.parametrize("grid", [(3, 5), (1, 1), (2, 3, 2)], ids=str)
@pytest.mark.parametrize(("name", "params", "definition"), NAMED)
def test_what_is_read_from_a_context_is_the_definition(
    name: str, params: dict[str, Any], definition: Definition, grid: tuple[int, ...]
) -> None:
    """Outputs and all gradients, for contexts of two lengths: that of the padding is zero."""
    mixer, x = bare(name, axes=len(grid), **params), image(*grid).requires_grad_()
    context = image(5, seed=2).requires_grad_()
    y = mixer(x, context=context, mask=torch.arange(5) < torch.tensor(LENGTHS)[:, None])
    images = zip(x.flatten(1, -2), context, LENGTHS, strict=True)
    plain = [definition(mixer.core, tokens, others[:length]) for tokens, others, length in images]
    expected = torch.stack(plain).view_as(x)
    assert_close(y, expected, 1e-12, "what is read")
    inputs = {"x": x, "context": context} | dict(mixer.named_parameters())
    weight = image(*grid, seed=3)
    made, wanted = (torch.autograd.grad(result, list(inputs.values()), weight) for result in (y, expected))
    assert made[1][1, LENGTHS[1] :].count_nonzero() == 0
    for key, gradient, right in zip(inputs, made, wanted, strict=True):
        assert_close(gradient, right, 1e-11, f"gradient of {key}")


@pytest.mark.parametrize(("name", "params", "definition"), NAMED)
def test_a_video_is_its_tokens(name: str, params: dict[str, Any], definition: Definition) -> None:
    """To these mixers places do not matter: frames may stand above one another."""
    video, page = bare(name, axes=3, **params), bare(name, **params)
    x = image(3, 2, 5)
    y, gradients = run_with_gradients(video, x)
    expected, wanted = run_with_gradients(page, x.flatten(1, 2))
    assert_close(y.flatten(1, 2), expected, 1e-13, "y")
    for key, gradient in gradients.items():
        assert_close(gradient.view_as(wanted[key]), wanted[key], 1e-12, f"gradient of {key}")
    assert video.cost(3, 2, 5) == page.cost(6, 5)
    assert video.inspect(x).keys() == page.inspect(x.flatten(1, 2)).keys()


@pytest.mark.parametrize(("queries", "keys"), [(3, 40), (40, 3), (2, 5), (5, 9)])
def test_both_associations_serve_other_queries(queries: int, keys: int) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = ((queries, 8), (keys, 8), (keys, 6))
    q, k, v = (torch.rand(2, 3, *size, dtype=torch.float64, generator=generator) for size in sizes)
    assert_close(products.averaged(q, k, v, 1e-3), reference.averaging_map(q, k, 1e-3) @ v, 1e-14, "averaged")
    fewest = min(queries * keys * 14, (queries + keys) * 48)
    assert products.product_macs(queries, 8, 6, keys) == fewest


def test_masked_keys_count_as_absent_in_every_type() -> None:
    mask = torch.tensor([True, True, False]).view(1, 1, 3, 1)
    for dtype in (torch.float32, torch.float64):
        k = torch.full((1, 1, 3, 2), 7.0, dtype=dtype)
        mean = products.present(k, mask).mean(-2)
        assert_close(mean, k[..., 0, :], torch.finfo(dtype).eps, "mean of the keys that are there")


@pytest.mark.parametrize("name", ["linear_attention", "lightnet", "homm"])
def test_reading_costs_no_product_of_queries_and_keys(name: str) -> None:
    """Of many tokens from many: the cost is affine in either."""
    mixer = operators.create(name, 16)
    less, more, longer, both = (
        mixer.cost(side, 64, context=tokens).macs for side, tokens in ((64, 1024), (128, 1024), (64, 2048), (128, 2048))
    )
    assert less + both == more + longer
