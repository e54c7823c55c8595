"""A run whose loss is no longer finite: when it happened, and which layer was the first to go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class DivergedError(RuntimeError):
    """The loss became NaN or infinite.

    Attributes:
        step: optimiser steps taken before.
        layer: name of the first layer with a non-finite parameter or output, or `loss` if only the loss is.
    """

    def __init__(self, step: int, layer: str) -> None:
        super().__init__(f"diverged at step {step}: the loss is not finite; first non-finite in {layer}")
        self.step = step
        self.layer = layer


def first_nonfinite(model: nn.Module, again: Callable[[], Any]) -> str:
    """The first layer of `model`, in order of execution, that is not finite when `again()` repeats the offending call.

    A layer is one without children. A non-finite parameter counts before any output, since it explains them.

    Returns:
        its name, with ` (parameter NAME)` where that is the cause, or `loss` if every layer is finite.
    """
    layers: list[str] = []

    def watch(name: str, layer: nn.Module) -> Callable[..., None]:
        def look(_layer: nn.Module, _inputs: Any, output: Any) -> None:
            if layers:
                return
            for key, parameter in layer.named_parameters():
                if not _finite(parameter):
                    layers.append(f"{name} (parameter {key})")
                    return
            if not all(_finite(tensor) for tensor in _tensors(output)):
                layers.append(name)

        return look

    handles = [
        layer.register_forward_hook(watch(name or type(model).__name__, layer)) for name, layer in model.named_modules()
    ]
    try:
        with torch.no_grad():
            again()
    finally:
        for handle in handles:
            handle.remove()
    return layers[0] if layers else "loss"


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for entry in value for tensor in _tensors(entry)]
    return []
