"""Which parameters an optimiser decays, and which it does not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

Group = dict[str, Any]
Named = Iterable[tuple[str, nn.Parameter]]


def parameter_groups(named: Named, weight_decay: float, exempt: Iterable[str] = ()) -> list[Group]:
    """Two groups for an optimiser: decayed weights, and those never decayed; an empty one is left out.

    Biases, other parameters of at most one dimension and the `exempt` names are not decayed; frozen parameters are
    left out.
    """
    spared = set(exempt)
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in named:
        if parameter.requires_grad:
            plain = parameter.ndim <= 1 or name.endswith("bias") or name in spared
            (kept if plain else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def rates(optimizer: Optimizer) -> dict[str, float]:
    """The learning rates now, by the names of their curves.

    Groups that began with one rate share a curve: `lr`, or with several rates `lr/NAME` of the first such group, or its
    number where it has no name.
    """
    curves: dict[float, tuple[str, float]] = {}
    for number, group in enumerate(optimizer.param_groups):
        start = float(group.get("initial_lr", group["lr"]))
        curves.setdefault(start, (f"lr/{group.get('name', number)}", float(group["lr"])))
    several = dict(curves.values())
    return several if len(several) > 1 else {"lr": next(iter(several.values()))}
