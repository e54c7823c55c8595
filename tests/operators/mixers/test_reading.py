"""Mixers that read from other tokens: what the contract does not ask, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import operators
from operators import InputError
from operators.testing.cases import noise
from operators.testing.checks import assert_close
from operators.testing.contract import assert_gradients

READERS = operators.names(reads_context=True)


def gradients(mixer: operators.Mixer, y: torch.Tensor, *inputs: torch.Tensor) -> dict[str, torch.Tensor | None]:
    wanted = {**dict(mixer.named_parameters()), **{f"input {i}": tensor for i, tensor in enumerate(inputs)}}
    found = torch.autograd.grad(y, list(wanted.values()), noise(*y.shape, dtype=y.dtype, seed=4))
    return dict(zip(wanted, found, strict=True))


def test_cross_attention_is_torchs() -> None:
    mixer = operators.create("attention", 16, heads=4, shell=operators.ShellSpec(gate="none", norm="none")).double()
    torchs = torch.nn.MultiheadAttention(16, 4, batch_first=True).double()
    core = mixer.core
    with torch.no_grad():
        torchs.in_proj_weight.copy_(torch.cat([core.qk.weight, mixer.shell.in_proj.weight]))
        torchs.in_proj_bias.copy_(torch.cat([core.qk.bias, torch.zeros(16, dtype=torch.float64)]))
        torchs.out_proj.weight.copy_(mixer.shell.out_proj.weight)
        torchs.out_proj.bias.zero_()
    x, context = noise(2, 3, 5, 16, dtype=torch.float64), noise(2, 7, 16, dtype=torch.float64, seed=3)
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    expected, _ = torchs(x.flatten(1, 2), context, context, key_padding_mask=~mask)
    for backend in ("sdpa", "reference"):
        core.requested_backend = backend
        assert_close(mixer(x, context=context, mask=mask).flatten(1, 2), expected, 1e-12, backend)


def test_every_token_reads_the_mean_polynomial_of_a_text() -> None:
    mixer = operators.create("pom", 8, degree=3, shell=operators.BARE).double()
    with torch.no_grad():
        mixer.core.coefficients.normal_(generator=torch.Generator().manual_seed(0))
    x, context = noise(2, 3, 5, 8, dtype=torch.float64), noise(2, 4, 8, dtype=torch.float64, seed=3)
    lengths = (4, 2)
    y = mixer(x, context=context, mask=torch.arange(4) < torch.tensor(lengths)[:, None])
    for image, length in enumerate(lengths):
        f = torch.nn.functional.leaky_relu(context[image, :length], 0.01).clamp(-0.1, 6)
        powers = sum(mixer.core.coefficients[:, p] * f ** (p + 1) for p in range(3))
        gate = torch.nn.functional.hardsigmoid(mixer.core.gate(x[image]))
        assert_close(y[image], gate * powers.mean(0), 1e-12, f"image {image}")


@pytest.mark.parametrize("name", READERS)
def test_gradients_with_a_mask_are_those_of_the_tokens_that_are_there(name: str) -> None:
    mixer = operators.create(name, 16).double()
    x = noise(2, 3, 5, 16, dtype=torch.float64).requires_grad_()
    context = noise(2, 4, 16, dtype=torch.float64, seed=3).requires_grad_()
    padding = noise(2, 3, 16, dtype=torch.float64, seed=5)
    masked = mixer(x, context=torch.cat([padding, context], 1), mask=torch.arange(7).expand(2, 7) >= 3)
    assert_gradients(
        gradients(mixer, masked, x, context), gradients(mixer, mixer(x, context=context), x, context), 1e-10, name
    )


@pytest.mark.parametrize(
    ("name", "shell"),
    [(name, shell) for name in READERS for shell in operators.describe(name).shells if shell != "common"],
)
def test_presets_without_a_convolution_read_too(name: str, shell: str) -> None:
    mixer, x = operators.create(name, 16, shell=shell).double(), noise(2, 3, 5, 16, dtype=torch.float64)
    assert not mixer.shell.spec.conv
    assert_close(mixer(x, context=x.flatten(1, 2)), mixer(x), 1e-10, "output of the own tokens as context")


@pytest.mark.parametrize("name", READERS)
def test_autocast_and_meta(name: str) -> None:
    x, context = noise(2, 3, 5, 16), noise(2, 4, 16, seed=3)
    mixer = operators.create(name, 16)
    expected = mixer(x, context=context)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(mixer(x, context=context), expected, 3e-2, "output under autocast")
    y = mixer.to("meta")(x.to("meta"), context=context.to("meta"))
    assert y.shape == x.shape


@pytest.mark.parametrize(
    ("name", "options", "given", "message"),
    [
        ("conv", {}, {"context": (2, 4, 16)}, "mixer conv reads no context"),
        ("pom", {}, {"context": (2, 4, 15)}, r"a context of shape \(2, M, 16\), M at least 1, not \(2, 4, 15\)"),
        ("pom", {}, {"context": (1, 4, 16)}, r"not \(1, 4, 16\)"),
        ("pom", {}, {"context": (2, 0, 16)}, r"not \(2, 0, 16\)"),
        ("pom", {}, {"context": (2, 2, 2, 16)}, r"not \(2, 2, 2, 16\)"),
        ("pom", {}, {"mask": (2, 4)}, "mask says which tokens of a context are there; give context"),
        ("pom", {}, {"context": (2, 4, 16), "mask": (2, 5)}, r"bool and shape \(2, 4\), not torch.bool and \(2, 5\)"),
        ("pom", {"rope": True}, {"context": (2, 4, 16)}, "those of a context have none"),
        ("attention", {"rope": True, "heads": 2}, {"context": (2, 4, 16)}, "those of a context have none"),
        ("attention", {"shell": {"conv": 3}}, {"context": (2, 4, 16)}, "shell.conv=3 needs a grid"),
        ("attention", {"backend": "xformers"}, {"context": (2, 4, 16)}, "it serves CUDA tensors only"),
    ],
)
def test_refusals(name: str, options: dict[str, Any], given: dict[str, tuple[int, ...]], message: str) -> None:
    mixer = operators.create(name, 16, **options)
    kinds = {"context": torch.zeros, "mask": lambda *shape: torch.ones(*shape, dtype=torch.bool)}
    arguments = {key: kinds[key](*shape) for key, shape in given.items()}  # type: ignore[operator]
    with pytest.raises(InputError, match=message) as caught:
        mixer(torch.zeros(2, 3, 5, 16), **arguments)
    assert "\n" not in str(caught.value)


def test_a_mask_is_bool() -> None:
    with pytest.raises(InputError, match="a mask of type bool"):
        operators.create("pom", 16)(torch.zeros(2, 3, 5, 16), context=torch.zeros(2, 4, 16), mask=torch.ones(2, 4))


def test_no_cost_of_a_context_that_is_not_read() -> None:
    with pytest.raises(InputError, match="mixer pool reads no context"):
        operators.create("pool", 16).cost(3, 5, context=4)
