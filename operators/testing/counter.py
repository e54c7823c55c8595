"""An operation counter that watches a computation from outside and knows nothing of mixers.

It sits below autograd and autocast and sees every operator that is dispatched. Its unit is the MAC (two real
floating-point operations), by the rules of `operators.cost`, written down here a second time on purpose:

    matrix products, convolutions     one MAC per multiply-accumulate, zero padding included; four if complex
    triangular systems                half of the product of their two sides
    attention                         the two products q kᵀ and (weights) v
    bilinear samples                  four per element of the result, one for each corner
    average pooling                   one addition, half a MAC, per element of the window and output
    complex FFT of n points           5 n log2 n operations; a real one half of that
    product of two complex tensors    3 MACs per element of the result
    selective scan                    9 L D S operations
    scans of both axes of a grid      the nine, and more for each product, exponential and sum of the second axis:
                                      lattice 16 L D S, two-step 11 L D S, Roesser 25 L D S
    separable propagators             the two products of every state
    and their matrices                a sum over waves for every offset, of cosines and of sines, along either axis
    filters by a transfer function    a real FFT there, one back and the product, on the extended grid

Other element-wise work and reductions are not counted. What looks like a product but has no rule raises, so that
nothing escapes in silence.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from operators.pde.boundary import extended
from operators.runtime.torch_private import TorchDispatchMode, operator_name

Formula = Callable[..., float]
"""MACs of one call: takes the operator's result as `out`, then its own arguments."""

CUSTOM_NAMESPACE = "operator_zoo"
_PRODUCTS = re.compile(
    r"""(mm|mv)(_|$) | dot | matmul | conv(?!ert) | attention | _fft_[rc]2[rc] | ((?<!adaptive_)avg_pool)
    | solve(_(tri|ex)|$) | (^|_)(bi|tri)?linear(_|$) | (lstm|gru)""",
    re.VERBOSE,
)


def scan_macs(batch: int, length: int, channels: int, state: int) -> float:
    """A selective scan: 9 L D S operations per sequence (the count of the VMamba code, arXiv 2401.09417)."""
    return 9 * batch * length * channels * state / 2


def _product(out: Tensor, terms: int) -> float:
    return out.numel() * terms * (4 if out.is_complex() else 1)


def _mm(out: Tensor, a: Tensor, b: Tensor, **_: Any) -> float:
    return _product(out, a.shape[-1])


def _addmm(out: Tensor, _bias: Tensor, a: Tensor, b: Tensor, **_: Any) -> float:
    return _product(out, a.shape[-1])


def _addbmm(out: Tensor, _bias: Tensor, a: Tensor, b: Tensor, **_: Any) -> float:
    return _product(out, a.shape[0] * a.shape[-1])


def _triangular(out: Tensor, a: Tensor, b: Tensor, **_: Any) -> float:
    return _product(out, a.shape[-1]) / 2


def _convolution(
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    *_: Any,
) -> float:
    taps = weight[0].numel()  # per output: input channels of the group × window; transposed: per input
    return (x if transposed else out).numel() * taps


def _attention(out: Any, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> float:
    pairs = math.prod(q.shape[:-1]) * k.shape[-2]
    return pairs * (q.shape[-1] + v.shape[-1])


def _avg_pool(out: Tensor, x: Tensor, kernel_size: list[int], *_: Any, **__: Any) -> float:
    spatial = 2 if x.ndim <= 4 else 3
    window = math.prod(kernel_size) if len(kernel_size) > 1 else kernel_size[0] ** spatial
    return out.numel() * window / 2


def _bilinear(out: Tensor, *_: Any, **__: Any) -> float:
    return 4 * out.numel()


def _transforms(signal: Tensor, dims: list[int]) -> float:
    """MACs of one complex FFT over `dims` of `signal`, for every entry of its other dimensions."""
    points = math.prod(signal.shape[d] for d in dims)
    return signal.numel() / points * 5 * points * math.log2(points) / 2


def _fft_c2c(out: Tensor, x: Tensor, dim: list[int], *_: Any, **__: Any) -> float:
    return _transforms(out, dim)


def _fft_r2c(out: Tensor, x: Tensor, dim: list[int], *_: Any, **__: Any) -> float:
    return _transforms(x, dim) / 2


def _fft_c2r(out: Tensor, x: Tensor, dim: list[int], *_: Any, **__: Any) -> float:
    return _transforms(out, dim) / 2


def _mul(out: Tensor, a: Any, b: Any, **_: Any) -> float:
    both = all(isinstance(factor, Tensor) and factor.is_complex() and factor.ndim > 0 for factor in (a, b))
    return 3 * out.numel() if both else 0


def _elementwise(out: Tensor, *_: Any) -> float:
    """Nothing, as for the products of numbers that it stands for."""
    return 0


def _scan(out: Any, u: Tensor, delta: Tensor, A: Tensor, *_: Any) -> float:
    batch, channels, length = u.shape
    return scan_macs(batch, length, channels, A.shape[1])


def _grid_scan(operations: int) -> Formula:
    """Of scans that take u (B, H, W, D) first, and then tensors of which the first of two axes is (D, S)."""

    def macs(_out: Any, u: Tensor, *others: Any) -> float:
        size = next(other.shape[1] for other in others if other.ndim == 2)
        return operations * u.numel() * size / 2

    return macs


def _lines(_out: Any, source: Tensor, *_: Any) -> float:
    return 4 * source.numel()


def _separable(out: Tensor, u: Tensor, rows: Tensor, columns: Tensor, *_: Any) -> float:
    return rows.shape[0] * u.numel() * (rows.shape[1] + columns.shape[1])


def _matrices(_out: Any, numbers: Tensor, height: int, width: int, row_axis: str, column_axis: str) -> float:
    halves = [period // 2 + 1 for period in extended((height, width), (row_axis, column_axis))]
    return numbers[0].numel() * sum(2 * half**2 for half in halves)


def _filter(out: Tensor, u: Tensor, response: Tensor, row_axis: str, column_axis: str) -> float:
    points = math.prod(extended(u.shape[1:3], (row_axis, column_axis)))
    transforms = 2 * 5 * points * math.log2(points) / 2 / 2
    return u.shape[0] * u.shape[3] * (transforms + 3 * response[0, ..., 0].numel())


FORMULAS: dict[str, Formula] = {
    **dict.fromkeys(("aten::mm", "aten::bmm", "aten::mv", "aten::dot", "aten::vdot"), _mm),
    **dict.fromkeys(("aten::addmm", "aten::baddbmm", "aten::addmv"), _addmm),
    "aten::addbmm": _addbmm,
    "aten::linalg_solve_triangular": _triangular,
    "aten::convolution": _convolution,
    **dict.fromkeys(
        (
            "aten::_scaled_dot_product_flash_attention",
            "aten::_scaled_dot_product_flash_attention_for_cpu",
            "aten::_scaled_dot_product_efficient_attention",
            "aten::_scaled_dot_product_cudnn_attention",
            "aten::_scaled_dot_product_fused_attention_overrideable",
        ),
        _attention,
    ),
    **dict.fromkeys(("aten::avg_pool2d", "aten::avg_pool3d"), _avg_pool),
    "aten::grid_sampler_2d": _bilinear,
    "aten::_fft_c2c": _fft_c2c,
    "aten::_fft_r2c": _fft_r2c,
    "aten::_fft_c2r": _fft_c2r,
    "aten::mul": _mul,
    "operator_zoo::selective_scan_fwd": _scan,
    "operator_zoo::lattice_scan_fwd": _grid_scan(16),
    "operator_zoo::two_step_scan_fwd": _grid_scan(11),
    "operator_zoo::roesser_scan_fwd": _grid_scan(25),
    "operator_zoo::separable_fwd": _separable,
    "operator_zoo::separable_matrices_fwd": _matrices,
    "operator_zoo::filter_fwd": _filter,
    "operator_zoo::line_scan_fwd": _lines,
    "operator_zoo::gated_norm_fwd": _elementwise,
}
"""What is counted, by `namespace::operator`. A mixer with an operator of its own adds an entry."""


class OpCounter(TorchDispatchMode):
    """Counts the MACs of everything that runs inside `with OpCounter() as counter:`.

    Attributes:
        macs: their sum so far.
        by_op: the same, by `namespace::operator`.

    Raises:
        NotImplementedError: an operator that looks like a product, or a custom one of the zoo, has no formula.
    """

    def __init__(self, formulas: Mapping[str, Formula] = FORMULAS) -> None:
        super().__init__()
        self.formulas = formulas
        self.by_op: dict[str, float] = defaultdict(float)

    @property
    def macs(self) -> float:
        return sum(self.by_op.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = operator_name(func).removesuffix("_") if func.namespace == "aten" else operator_name(func)
        formula = self.formulas.get(name)
        if formula is not None:
            self.by_op[name] += formula(out, *args, **(kwargs or {}))
        elif unaccounted(name):
            raise NotImplementedError(f"{name} has no formula in the operation counter")
        return out


def unaccounted(name: str) -> bool:
    """Whether an operator without a formula, `namespace::operator`, should have one."""
    namespace, _, operator = name.partition("::")
    if namespace == CUSTOM_NAMESPACE:
        return True
    return bool(_PRODUCTS.search(operator))


def count_macs(function: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
    """MACs of `function(*args, **kwargs)`, forward only."""
    with torch.no_grad(), OpCounter() as counter:
        function(*args, **kwargs)
    return counter.macs
