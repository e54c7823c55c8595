"""Authors' weights: made random, taken apart, and put together as ours are laid out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from operators.shell.shell import EPS


def randomised(module: nn.Module, scale: float = 0.3) -> Any:
    """The module in float64, what it learns off its start, also where that is zero, and with our LayerNorms' eps."""
    for parameter in module.double().parameters():
        if parameter.requires_grad:
            parameter.data += scale * torch.randn_like(parameter)
    for each in module.modules():
        if isinstance(each, nn.LayerNorm):
            each.eps = EPS
    return module


def of(module: nn.Module) -> dict[str, Tensor]:
    """The parameters of a layer by name; a 1 × 1 convolution is a linear map."""
    weights: dict[str, Tensor] = dict(module.named_parameters())
    if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
        weights["weight"] = module.weight[:, :, 0, 0]
    return weights


def split(weights: Mapping[str, Tensor], *sizes: int) -> list[dict[str, Tensor]]:
    """The layers that a layer is one of, by their numbers of outputs."""
    parts: list[dict[str, Tensor]] = [{} for _ in sizes]
    for name, weight in weights.items():
        for part, rows in zip(parts, weight.split(sizes), strict=True):
            part[name] = rows
    return parts


def joined(*layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One layer with the outputs of all."""
    return {name: torch.cat([layer[name] for layer in layers]) for name in layers[0]}


def halves(weights: Mapping[str, Tensor], heads: int) -> dict[str, Tensor]:
    """A layer whose outputs 2 i and 2 i + 1 of a head of d are its outputs i and i + d / 2: pairs that are turned."""
    return {name: rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2) for name, rows in weights.items()}


def named(**layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters of all layers by their names within a module: `core__maps` is for `core.maps`."""
    return {
        f"{prefix.replace('__', '.')}.{name}": weight
        for prefix, weights in layers.items()
        for name, weight in weights.items()
    }


def pairs(ours: nn.Module, theirs: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Parameters of ours, by name, with those of theirs."""
    return [(ours.get_parameter(name), weight) for name, weight in theirs.items()]
