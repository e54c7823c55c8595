"""AdamW over two groups of parameters, and its learning rate step by step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from tasks.config.training import OptimizerConfig


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], weight_decay: float, exempt: Iterable[str] = ()
) -> list[dict[str, object]]:
    """Two groups for an optimiser: decayed weights, and those never decayed.

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


def warmup_steps(warmup: float, total: int, epochs: float) -> int:
    """Steps of linear warm-up: a share of `total` if `warmup` is below 1, else that many of `epochs` epochs."""
    return round(warmup * total if warmup < 1 else warmup * total / epochs)


def rate(step: int, total: int, warmup: int, config: OptimizerConfig) -> float:
    """Factor on the peak learning rate at `step`: linear from 1 / warmup, then flat or half a cosine to `min_lr`."""
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "constant" or config.lr == 0:
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    floor = min(1.0, config.min_lr / config.lr)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def create(
    named: Iterable[tuple[str, nn.Parameter]],
    config: OptimizerConfig,
    *,
    total: int,
    epochs: float,
    exempt: Iterable[str] = (),
    fused: bool = True,
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """The optimiser and its scheduler, to be stepped after every optimiser step.

    Args:
        named: names and parameters of the model.
        config: what to make.
        total: optimiser steps of the whole run.
        epochs: epochs that these steps make up.
        exempt: names of parameters that are not decayed.
        fused: one kernel for all parameters; Lightning does not clip for it in mixed precision.
    """
    groups = parameter_groups(named, config.weight_decay, exempt)
    betas = (config.betas[0], config.betas[1])
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=fused or None)
    warmup = warmup_steps(config.warmup, total, epochs)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, total, warmup, config))
