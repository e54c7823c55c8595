"""The optimisers by name: torch's own where it has them, else those of the package pytorch_optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from operators.errors import InputError
from tasks.config.training import OptimizerConfig
from tasks.optim.combined import Combined
from tasks.optim.groups import Group, Named, parameter_groups
from tasks.optim.schedules import rate, span


def create(
    named: Named,
    config: OptimizerConfig,
    *,
    total: int,
    epochs: float,
    exempt: Iterable[str] = (),
    matrices: Iterable[str] = (),
    fused: bool = True,
) -> tuple[Optimizer, LambdaLR]:
    """The optimiser and its scheduler, to be stepped after every optimiser step.

    Args:
        named: names and parameters of the model.
        config: what to make.
        total: optimiser steps of the whole run.
        epochs: epochs that these steps make up.
        exempt: names of parameters that are not decayed.
        matrices: names of the weights that `muon` makes orthogonal steps for; AdamW takes all others.
        fused: one kernel for all parameters, where the optimiser has one; Lightning does not clip for it in mixed
            precision.

    Raises:
        InputError: the optimiser's package is not installed.
    """
    known, spared, inner = dict(named), set(exempt), set(matrices)
    if config.name == "muon":
        optimizer: Optimizer = _muon(known, config, spared, inner, fused)
    else:
        groups = parameter_groups(known.items(), config.weight_decay, spared)
        optimizer = _KINDS[config.name].make(groups, config, fused)
    warmup, decay = span(config.warmup, total, epochs), span(config.decay, total, epochs)
    return optimizer, LambdaLR(optimizer, lambda step: rate(step, total, warmup, config, decay))


def state_like(optimizer: Optimizer, config: OptimizerConfig) -> list[Mapping[str, Tensor]]:
    """What the optimiser keeps of each of its parameters, in their order: tensors of the right shapes, or scalars."""
    parameters = [(group, parameter) for group in optimizer.param_groups for parameter in group["params"]]
    if config.name == "muon":  # its groups are those with a momentum; AdamW has the others
        kinds = [_MUON if "momentum" in group else _ADAM for group, _ in parameters]
    else:
        kinds = [_KINDS[config.name].state] * len(parameters)
    return [kind(parameter) for kind, (_, parameter) in zip(kinds, parameters, strict=True)]


def _adamw(groups: list[Group], config: OptimizerConfig, fused: bool) -> AdamW:
    return AdamW(groups, lr=config.lr, betas=(config.betas[0], config.betas[1]), fused=fused or None)


def _muon(
    known: Mapping[str, nn.Parameter], config: OptimizerConfig, spared: set[str], inner: set[str], fused: bool
) -> Combined:
    """Muon (Jordan 2024) for hidden matrices, its steps as large as AdamW's (arXiv 2502.16982, equation 4)."""
    hidden = {
        name: parameter for name, parameter in known.items() if name in inner - spared and parameter.requires_grad
    }
    rest = ((name, parameter) for name, parameter in known.items() if name not in hidden)
    parts: list[Optimizer] = []
    if hidden:
        parts.append(
            torch.optim.Muon(
                hidden.values(),
                lr=config.lr,
                weight_decay=config.weight_decay,
                momentum=config.momentum,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    others = parameter_groups(rest, config.weight_decay, spared)
    if others:
        parts.append(_adamw(others, config, fused))
    return Combined(parts)


def _adafactor(groups: list[Group], config: OptimizerConfig, fused: bool) -> Optimizer:
    return torch.optim.Adafactor(groups, lr=config.lr)


def _packaged(name: str) -> Callable[[list[Group], OptimizerConfig, bool], Optimizer]:
    def make(groups: list[Group], config: OptimizerConfig, fused: bool) -> Optimizer:
        made: Optimizer = getattr(_package(config.name), name)(groups, lr=config.lr, betas=tuple(config.betas))
        return made

    return make


def _package(optimizer: str) -> Any:
    try:
        import pytorch_optimizer
    except ImportError as error:
        raise InputError(
            f"optimizer={optimizer} needs the package pytorch_optimizer ({error}): pip install "
            '"operator-zoo[optimizers]", or pip install pytorch_optimizer'
        ) from error
    return pytorch_optimizer


State = Callable[[Tensor], Mapping[str, Tensor]]
"""What is kept of a parameter."""


@dataclass(frozen=True)
class _Kind:
    make: Callable[[list[Group], OptimizerConfig, bool], Optimizer]
    state: State


def _alike(*names: str, scalars: Iterable[str] = ()) -> State:
    """Tensors of the parameter's shape with these names, and scalars."""
    numbers = tuple(scalars)
    return lambda parameter: {**dict.fromkeys(names, parameter), **{name: torch.zeros(()) for name in numbers}}


def _factored(parameter: Tensor) -> Mapping[str, Tensor]:
    step = {"step": torch.zeros(())}
    if parameter.ndim < 2:
        return {**step, "variance": parameter}
    return {**step, "row_var": parameter[..., :1], "col_var": parameter[..., :1, :]}


_ADAM = _alike("exp_avg", "exp_avg_sq", scalars=("step",))
_MUON = _alike("momentum_buffer")
_KINDS = {
    "adamw": _Kind(_adamw, _ADAM),
    "lion": _Kind(_packaged("Lion"), _alike("exp_avg")),
    "lamb": _Kind(_packaged("Lamb"), _alike("exp_avg", "exp_avg_sq")),
    "adafactor": _Kind(_adafactor, _factored),
    "schedule_free": _Kind(_packaged("ScheduleFreeAdamW"), _alike("z", "exp_avg_sq")),
}
