"""What stands in for the authors' kernels and for packages that are not installed."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import operators
from operators import scan

_LAYERS: dict[str, Any] = {
    "DropPath": nn.Identity,
    "trunc_normal_": nn.init.trunc_normal_,
    "to_2tuple": lambda value: value if isinstance(value, tuple) else (value, value),
}
TIMM: dict[str, dict[str, Any]] = {
    "timm.data": {},
    "timm.layers": _LAYERS,
    "timm.models.layers": _LAYERS,
    "timm.models.layers.helpers": _LAYERS,
    "timm.models.registry": {},
    "timm.models.vision_transformer": {},
}
"""What mixers need of timm; what builds whole models is left out."""


def images(*grid: int, dim: int = 16) -> Tensor:
    """Two images of random tokens."""
    return torch.randn(2, *grid, dim, dtype=torch.float64)


def built(mixer: str, dim: int, **options: Any) -> Any:
    """Our mixer in float64."""
    return operators.create(mixer, dim, **options).double()


def of(place: str, module: nn.Module | None) -> dict[str, Tensor]:
    """The parameters of a module, as ours at a place has them if it has the same names."""
    return {} if module is None else {f"{place}.{name}": each for name, each in module.named_parameters()}


def branch(
    place: str, project: Tensor, step: Tensor, bias: Tensor, A_log: Tensor, D: Tensor, conv: nn.Module | None = None
) -> dict[str, Tensor]:
    """The parameters of our `Branch` at a place."""
    own = {"project.weight": project, "step.weight": step, "step.bias": bias, "A_log": A_log, "D": D}
    return {f"{place}.{name}": each for name, each in own.items()} | of(f"{place}.conv", conv)


def direction(place: str, ss2d: Any, index: int) -> dict[str, Tensor]:
    """As `branch`, of the direction with this index of an `SS2D` such as VMamba's, which stacks those of all."""
    project, step, bias = (getattr(ss2d, name)[index] for name in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias"))
    own = slice(index * len(bias), (index + 1) * len(bias))
    return branch(place, project, step, bias, ss2d.A_logs[own], ss2d.Ds[own])


def vmamba_shell(layer: Any) -> dict[str, Tensor]:
    """The parameters of our shell, of a layer that names them as VMamba and its kin do."""
    named = {"in_proj": layer.in_proj, "out_proj": layer.out_proj, "conv": layer.conv2d, "norm": layer.out_norm}
    return {name: each for own, module in named.items() for name, each in of(f"shell.{own}", module).items()}


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor:
    """`selective_scan_fn` of mamba_ssm: a loop over tokens."""
    assert not return_last_state
    y = scan.selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, backend="reference")
    assert isinstance(y, Tensor)
    return y


class SelectiveScan:
    """The function of VMamba and its kin, whose last arguments are of its kernel alone."""

    @staticmethod
    def apply(
        u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor, softplus: bool, *_: Any
    ) -> Tensor:
        return selective_scan(u, delta, A, B, C, D, None, bias, softplus)


def causal_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, **_: Any) -> Tensor:
    """`causal_conv1d_fn` of (B, D, N), with a filter (D, taps)."""
    assert activation == "silu"
    return F.silu(F.conv1d(F.pad(x, (weight.shape[-1] - 1, 0)), weight[:, None], bias, groups=len(weight)))


def mamba_inner(
    xz: Tensor,
    conv: Tensor,
    conv_bias: Tensor | None,
    project: Tensor,
    step: Tensor,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = True,
    gated: bool = True,
) -> Tensor:
    """`mamba_inner_fn_no_out_proj` of (B, 2 D, N), without its gate unless `gated`.

    B and C (D, S) are the same for all tokens; what is None is made of each by the last rows of `project`.
    """
    x, z = xz.chunk(2, dim=1)
    x = causal_convolution(x, conv[:, 0], conv_bias, "silu")
    own = [A.shape[1] for given in (B, C) if given is None]
    low_rank, *made = (project @ x).split([step.shape[1], *own], dim=1)
    full = (len(x), *A.shape, x.shape[-1])
    B, C = ((made.pop(0)[:, None] if given is None else given[..., None]).expand(full) for given in (B, C))
    return selective_scan(x, step @ low_rank, A, B, C, D, z if gated else None, delta_bias, delta_softplus)


class _Context:
    """Of a function's forward, for what it keeps."""


def differentiated(function: Any) -> Any:
    """A function of autograd whose gradient is that of its forward, not the one that its backward has."""

    class Differentiated:
        @staticmethod
        def apply(*arguments: Any) -> Any:
            return function.forward(_Context(), *arguments)

    return Differentiated


def empty(*packages: str) -> dict[str, dict[str, Any]]:
    """Stubs for what is imported and not used."""
    return {package: {} for package in packages}
