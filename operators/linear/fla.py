"""The Triton kernels of flash-linear-attention (package `fla-core`) for this folder's recurrences, on CUDA.

    decayed, per head and per key channel             chunk_simple_gla, chunk_gla
    delta rule without decay, per head, per channel   chunk_delta_rule, chunk_gated_delta_rule, chunk_kda
    delta rule with several writes of a token         chunk_gated_delta_product
    log-linear attention                              chunk_log_linear_attn

They multiply queries, keys and values in the type of the call, that of autocast where it is on; logarithms of decays
and write strengths stay in float32. Before kernels serve a recurrence for the first time they run on a short sequence,
and are refused if the outputs or a gradient are off the plain recurrence by more than rounding.

Never run on a GPU by this project. On CPU tensors, under the interpreter of Triton 3.7.0, the kernels of fla-core 0.6.0
were compared with the plain recurrences in float64 by this module's trial (80 tokens, 2 and 3 heads of 16 channels, 64
key channels in the last): relative RMS errors of outputs and gradients at most 9e-4 in float16, and 3e-6 in float32.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.errors import InputError
from operators.linear import decayed_reference, delta_reference, levels_reference
from operators.precision import full_precision, wide
from operators.runtime.tensors import ordinary_tensors
from operators.runtime.tracing import constant, untraced

INSTALL = "it is not installed: pip install 'operator-zoo[fla]'"
TYPES = (torch.bfloat16, torch.float16, torch.float32)
TOLERANCE = 0.05
"""Largest relative RMS error of a trial. Products of bfloat16 round to 0.004."""
TRIAL_TOKENS = 80
"""One chunk of the kernels, and a part of the next."""


class Problem(NamedTuple):
    """What of a recurrence decides which kernels serve it, and whether.

    Attributes:
        rule: by what a token changes the state.
        decay: what has a decay of its own.
        heads: heads H.
        key: key channels K of a head.
        value: value channels V of a head.
        writes: writes of a token, of the delta rule.
        levels: scales of a token, of log-linear attention.
        initial: whether it starts from a state that is not zero, of the delta rule.
    """

    rule: Literal["decayed", "delta", "log_linear"]
    decay: Literal["none", "head", "channel"]
    heads: int
    key: int
    value: int
    writes: int = 1
    levels: int = 0
    initial: bool = False


class TritonKernel(NamedTuple):
    """A function of `fla.ops`.

    Attributes:
        module: where it is in `fla.ops`.
        function: its name.
        half_only: whether it refuses float32.
        most_key: most key channels of a head, or None.
    """

    module: str
    function: str
    half_only: bool = False
    most_key: int | None = None


KERNELS = {
    ("decayed", "head"): TritonKernel("simple_gla", "chunk_simple_gla"),
    ("decayed", "channel"): TritonKernel("gla", "chunk_gla"),
    ("delta", "none"): TritonKernel("delta_rule", "chunk_delta_rule", half_only=True, most_key=256),
    ("delta", "head"): TritonKernel("gated_delta_rule", "chunk_gated_delta_rule", most_key=256),
    ("delta", "channel"): TritonKernel("kda", "chunk_kda", most_key=256),
    ("log_linear", "head"): TritonKernel("log_linear_attn", "chunk_log_linear_attn"),
}
"""By rule and decay, for one write of a token."""
SEVERAL_WRITES = TritonKernel("gated_delta_product", "chunk_gated_delta_product", half_only=True, most_key=256)
REFERENCES: dict[str, Callable[..., Tensor]] = {
    "decayed": decayed_reference.recurrence,
    "delta": lambda **given: delta_reference.recurrence(**given)[0],
    "log_linear": levels_reference.log_linear,
}
"""The plain recurrence of each rule."""
LEVEL_KEY = 64
"""Of which the key channels of log-linear attention are a multiple; its value channels are a power of two."""


def kernel(problem: Problem) -> TritonKernel:
    """The kernel for it."""
    return SEVERAL_WRITES if problem.writes > 1 else KERNELS[problem.rule, problem.decay]


def run(
    problem: Problem,
    dtype: torch.dtype,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    scales: Tensor | None = None,
) -> Tensor:
    """The outputs y (B, N, H, V) of a recurrence, in at least float32; they can be differentiated once.

    Args:
        problem: what is computed.
        dtype: in which kernels multiply.
        q: (B, N, G, K); each of G groups serves H / G neighbouring heads.
        k: like q; (B, N · W, H, K) with W writes of each token.
        v: (B, N, H, V) or (B, N · W, H, V).
        log_decay: (B, N, H) or (B, N, H, K), at most 0.
        beta: (B, N · W, H), of the delta rule.
        scales: (B, N, H, L), of log-linear attention.
    """
    options: dict[str, Any] = {}
    if log_decay is not None:
        options["g"] = log_decay.float()
    if beta is not None:
        options["beta"] = beta.float()
    if scales is not None:
        options["level_scales"] = scales.to(dtype)
    if problem.writes > 1:
        options = {"g": None, "num_householder": problem.writes, **options}
    if problem.rule == "decayed":
        q, k = (shared.repeat_interleave(problem.heads // shared.shape[2], dim=2) for shared in (q, k))
    return _call(kernel(problem), q.to(dtype), k.to(dtype), v.to(dtype), options).to(wide(dtype))


@untraced
def _call(kernel: TritonKernel, q: Tensor, k: Tensor, v: Tensor, options: Mapping[str, Any]) -> Tensor:
    function = getattr(importlib.import_module(f"fla.ops.{kernel.module}"), kernel.function)
    with full_precision(q):
        y, _ = function(q, k, v, scale=1.0, **options)
    once: Tensor = _Once.apply(y)
    return once


class _Once(torch.autograd.Function):
    """Hands y on. Gradients that kernels compute have no graph, and would be taken for constants in silence."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise InputError("the kernels of fla have no second derivatives; use the backend chunked or reference")
        return gradient


@constant
def refusal(problem: Problem, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernels cannot serve a recurrence on tensors of that device in that type, or None if they can.

    The package is imported only for CUDA tensors.
    """
    if device.type != "cuda":
        return f"it serves CUDA tensors only, and these are on {device.type}"
    return _unfit(problem, dtype) or missing() or _trial(problem, device, dtype)


def _unfit(problem: Problem, dtype: torch.dtype) -> str | None:
    serving = kernel(problem)
    if problem.initial:
        return "it has not been compared from a state that is not zero"
    if dtype not in TYPES:
        return f"it has no {str(dtype).removeprefix('torch.')}"
    if dtype == torch.float32 and serving.half_only:
        return f"its {serving.function} has no float32: train with precision bf16-mixed or 16-mixed"
    if dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest":
        return (
            "it rounds products of float32 to TF32: train with precision bf16-mixed or 16-mixed, or allow TF32 by "
            "torch.set_float32_matmul_precision('high')"
        )
    if torch.are_deterministic_algorithms_enabled():
        return (
            "its kernels are tuned by their time, so that two runs round differently, and torch must be deterministic"
        )
    if serving.most_key is not None and problem.key > serving.most_key:
        return f"it takes at most {serving.most_key} key channels per head, not {problem.key}"
    power = problem.value & (problem.value - 1) == 0
    if problem.rule == "log_linear" and (problem.key % LEVEL_KEY or not power):
        return (
            f"it takes key channels divisible by {LEVEL_KEY} and a power of two of value channels per head, "
            f"not {problem.key} and {problem.value}"
        )
    return None


@lru_cache
def missing() -> str | None:
    """Why the package cannot be imported, or None."""
    if importlib.util.find_spec("fla") is None:
        return INSTALL
    try:
        importlib.import_module("fla.ops")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # a Triton that does not fit fails in any way
        return f"it does not import ({' '.join(str(error).split())})"
    return None


@lru_cache
def _trial(problem: Problem, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernels fail on a short sequence, or what of it is off the plain recurrence; None if nothing is."""
    with ordinary_tensors(), torch.enable_grad():
        given, gradient = _example(problem, dtype)
        moved = {name: tensor.to(device).requires_grad_() for name, tensor in given.items()}
        try:
            y = run(problem, dtype, **moved)
            gradients = torch.autograd.grad(y, list(moved.values()), gradient.to(y))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - compilers, their versions and drivers fail in ways of their own
            return " ".join(f"{type(error).__name__}: {error}".split())
        leaves = {name: _ends(tensor).double().requires_grad_() for name, tensor in given.items()}
        right = REFERENCES[problem.rule](**leaves)
        expected = torch.autograd.grad(right, list(leaves.values()), _ends(gradient).double())
    names = ("outputs", *(f"gradients of {name}" for name in given))
    for name, computed, reference in zip(names, (y.detach(), *gradients), (right.detach(), *expected), strict=True):
        off = float((_ends(computed).cpu().double() - reference).norm() / reference.norm())
        if not off <= TOLERANCE:  # nor is NaN
            return f"its {name} are off the plain recurrence by {off:.2g} (relative RMS) on this device"
    return None


def _example(problem: Problem, dtype: torch.dtype) -> tuple[dict[str, Tensor], Tensor]:
    """Arguments of `run`, rounded as it rounds them, and a gradient of the outputs that only the end heads have."""
    rule, decay, heads, key, value, writes, levels, _ = problem
    generator = torch.Generator().manual_seed(0)
    groups = heads if rule == "delta" else 1

    def normal(*shape: int) -> Tensor:
        return torch.randn(1, *shape, generator=generator).to(dtype)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(1, *shape, generator=generator)

    given = {
        "q": normal(TRIAL_TOKENS, groups, key) * key**-0.5,
        "k": F.normalize(normal(TRIAL_TOKENS * writes, groups, key), dim=-1),
        "v": normal(TRIAL_TOKENS * writes, heads, value),
    }
    if decay != "none":
        given["log_decay"] = -uniform(TRIAL_TOKENS, heads, *([key] if decay == "channel" else []))
    if rule == "delta":
        given["beta"] = uniform(TRIAL_TOKENS * writes, heads)
    if rule == "log_linear":
        given["scales"] = uniform(TRIAL_TOKENS, heads, levels).to(dtype)
    gradient = torch.zeros(1, TRIAL_TOKENS, heads, value)
    for head in (0, -1):
        gradient[:, :, head] = normal(TRIAL_TOKENS, value)
    return given, gradient


def _ends(tensor: Tensor) -> Tensor:
    """The first and the last head of a tensor (B, N, H, …): heads are independent, and a plain recurrence is slow."""
    return tensor[:, :, :: max(1, tensor.shape[2] - 1)]
