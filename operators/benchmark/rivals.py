"""Operators of other packages in the same table, each behind an adapter that says why it cannot serve, if so."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.benchmark.workload import DTYPES, Shape, Target, Workload, leaf, noise
from operators.cost import fft_macs
from operators.errors import check_choice
from operators.mixers.attention.attention import xformers_refusal
from operators.mixers.heads import default_heads
from operators.scan import cuda

SCAN_STATES = 16
MODES = 16
"""Most Fourier modes along an axis of the spectral convolution (FNO, arXiv 2010.08895, keeps 12 to 16)."""


@dataclass(frozen=True)
class Rival:
    """An operator of another package.

    Attributes:
        name: by which `--rivals` asks for it.
        refusal: why it cannot serve a shape at a place, or None.
        make: builds it.
    """

    name: str
    refusal: Callable[[Shape, Target], str | None]
    make: Callable[[Shape, Target], Workload]

    @property
    def label(self) -> str:
        return f"rival {self.name}"

    @property
    def kind(self) -> str:
        return "rival"

    @property
    def judged(self) -> None:
        return None

    def absent(self, shape: Shape, place: Target) -> str | None:
        return self.refusal(shape, place)

    def build(self, shape: Shape, place: Target) -> Workload:
        return self.make(shape, place)


def _importable(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:  # a broken binary package fails in any of these ways
        return f"{module} does not import ({' '.join(str(error).split())})"
    return None


def _anywhere(shape: Shape, place: Target) -> str | None:
    return None


def _importing(module: str) -> Callable[[Shape, Target], str | None]:
    return lambda shape, place: _importable(module)


def _heads(shape: Shape, place: Target, *, tokens_first: bool) -> tuple[Tensor, ...]:
    """q, k and v, (B, N, heads, d) or (B, heads, N, d), in the place's type."""
    heads = default_heads(shape.dim)
    inner = (shape.tokens, heads) if tokens_first else (heads, shape.tokens)
    size = (shape.batch, *inner, shape.dim // heads)
    dtype = DTYPES[place.dtype]
    return tuple(leaf(noise(*size, device=place.device, seed=seed).to(dtype)) for seed in range(3))


def _attention_macs(shape: Shape) -> float:
    return 2 * shape.batch * shape.tokens**2 * shape.dim


def _sdpa(shape: Shape, place: Target) -> Workload:
    q, k, v = _heads(shape, place, tokens_first=False)
    return Workload(
        lambda: F.scaled_dot_product_attention(q, k, v), (q, k, v), (), _attention_macs(shape), "torch sdpa"
    )


def _xformers_refusal(shape: Shape, place: Target) -> str | None:
    head_width = shape.dim // default_heads(shape.dim)
    return xformers_refusal(torch.device(place.device), DTYPES[place.dtype], head_width)


def _xformers(shape: Shape, place: Target) -> Workload:
    ops = importlib.import_module("xformers.ops")
    q, k, v = _heads(shape, place, tokens_first=True)
    return Workload(lambda: ops.memory_efficient_attention(q, k, v), (q, k, v), (), _attention_macs(shape), "xformers")


def _module(module: torch.nn.Module, x: Tensor, macs: float, backend: str, place: Target) -> Workload:
    module = module.to(place.device)
    x = leaf(x)
    return Workload(lambda: module(x), (x,), tuple(module.parameters()), macs, backend)


def _timm(shape: Shape, place: Target) -> Workload:
    """The module `Attention` of timm: qkv and output maps around torch's SDPA."""
    attention = importlib.import_module("timm.layers").Attention
    module: torch.nn.Module = attention(shape.dim, num_heads=default_heads(shape.dim))
    x = noise(shape.batch, shape.tokens, shape.dim, device=place.device)
    maps = 4 * shape.batch * shape.tokens * shape.dim**2
    return _module(module, x, maps + _attention_macs(shape), "timm", place)


def _spectral(shape: Shape, place: Target) -> Workload:
    """The spectral convolution of Fourier neural operators: a dense C × C map for each of the modes kept."""
    convolution = importlib.import_module("neuralop.layers.spectral_convolution").SpectralConv
    modes = (min(shape.height, MODES), min(shape.width, MODES))
    module: torch.nn.Module = convolution(shape.dim, shape.dim, n_modes=modes)
    x = noise(shape.batch, shape.dim, shape.height, shape.width, device=place.device)
    kept = modes[0] * (modes[1] // 2 + 1)
    macs = shape.batch * shape.dim * (2 * fft_macs(shape.tokens) + 4 * kept * shape.dim)
    return _module(module, x, macs, "neuraloperator", place)


def _scan(function: str) -> Callable[[Shape, Target], Workload]:
    """mamba-ssm's scan of that name, along rows, in one direction; the count of `operators.mixers.scan.branch`."""

    def make(shape: Shape, place: Target) -> Workload:
        interface: Any = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
        scan = getattr(interface, function)
        batch, channels, length, device = shape.batch, shape.dim, shape.tokens, place.device
        u, delta = (leaf(noise(batch, channels, length, device=device, seed=seed)) for seed in (0, 1))
        b, c = (leaf(noise(batch, SCAN_STATES, length, device=device, seed=seed)) for seed in (2, 3))
        a = leaf(-noise(channels, SCAN_STATES, device=device, seed=4).exp())
        macs = 9 * batch * length * channels * SCAN_STATES / 2
        return Workload(
            lambda: scan(u, delta, a, b, c, delta_softplus=True), (u, delta, b, c), (a,), macs, f"mamba_ssm {function}"
        )

    return make


def _scan_ref_refusal(shape: Shape, place: Target) -> str | None:
    # Some versions do not import without the kernel, though this scan is plain torch.
    reason = _importable("mamba_ssm.ops.selective_scan_interface")
    return reason and (cuda.unbuilt() or reason)


def _scan_refusal(shape: Shape, place: Target) -> str | None:
    return cuda.refusal(torch.device(place.device), torch.float32)


RIVALS = (
    Rival("sdpa", _anywhere, _sdpa),
    Rival("xformers", _xformers_refusal, _xformers),
    Rival("timm", _importing("timm.layers"), _timm),
    Rival("mamba_ssm", _scan_refusal, _scan("selective_scan_fn")),
    Rival("mamba_ssm_ref", _scan_ref_refusal, _scan("selective_scan_ref")),
    Rival("spectral_conv", _importing("neuralop.layers.spectral_convolution"), _spectral),
)
"""torch's attention alone, xformers', timm's module, both scans of mamba-ssm, neuraloperator's spectral convolution."""


def rival_arms(names: str) -> list[Rival]:
    """The rivals meant by `auto` (all; those that are not there are listed with the reason), `none`, or names.

    Raises:
        InputError: an unknown name.
    """
    if names in ("auto", "none"):
        return list(RIVALS) if names == "auto" else []
    by_name = {rival.name: rival for rival in RIVALS}
    chosen = dict.fromkeys(check_choice("rival", name, by_name) for name in names.split(","))
    return [by_name[name] for name in chosen]
