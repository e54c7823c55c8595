"""Authors' weights: made random, taken apart, and put together as ours are laid out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


@torch.no_grad()
def randomise(module: Module, deviation: float = 0.3) -> Module:
    """The module with normal numbers added to all its parameters: what starts at zero or one counts as well."""
    for parameter in module.parameters():
        parameter.add_(deviation * torch.randn_like(parameter))
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
