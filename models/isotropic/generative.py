"""What all generators share: trunks that are told a time and a class, and give an image."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from models.trunk import Trunk
from operators import InputError
from operators.runtime.fakes import valueless

TIME_SLACK = 1e-3
"""How far a time may lie outside [0, 1]: a solver that adds up its steps misses the end by rounding."""


class GenerativeTrunk(Trunk):
    """Base class of the generators: `model(x, time, label)` maps x (B, in_channels, H, W) to a tensor of its shape.

    Raises:
        InputError: sizes that do not fit.
    """

    @property
    def null_label(self) -> int:
        """The label that stands for no class."""
        return self.num_classes

    @abstractmethod
    def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        """Output (B, in_channels, H, W) for noisy images x of that shape.

        Args:
            x: images (B, in_channels, H, W).
            time: (B,) floating-point numbers in [0, 1].
            label: (B,) int64 numbers 0 … num_classes; the last one, `null_label`, means no class.

        Raises:
            InputError: a wrong shape or type, a grid that a mixer cannot serve; on the CPU and outside compiled code
                also times and labels out of range (elsewhere looking would stall the device).
        """

    def check_condition(self, time: Tensor, label: Tensor) -> None:
        """Raise `InputError` unless times and labels are what `forward` takes."""
        _check_vector("time", time, "a floating-point", time.is_floating_point())
        _check_vector("label", label, "an int64", label.dtype == torch.int64)
        if time.shape != label.shape:
            raise InputError(f"time and label must be of one length, not {len(time)} and {len(label)}")
        _check_range("time", time, 0, 1, TIME_SLACK, "")
        _check_range("label", label, 0, self.null_label, 0, f" ({self.null_label}: no class)")


def check_batch(x: Tensor, time: Tensor) -> None:
    """Raise `InputError` unless there is one time for each image of x (B, …)."""
    if len(time) != len(x):
        raise InputError(f"time and label must be of shape ({len(x)},), one number per image, not ({len(time)},)")


def _check_vector(what: str, value: Tensor, kind: str, right_type: bool) -> None:
    if value.ndim != 1 or not right_type:
        raise InputError(f"{what} must be {kind} tensor of shape (B,), not {value.dtype} {tuple(value.shape)}")


def _check_range(what: str, value: Tensor, least: int, most: int, slack: float, note: str) -> None:
    if value.device.type != "cpu" or torch.compiler.is_compiling() or valueless(value):
        return
    wrong = value[~((value >= least - slack) & (value <= most + slack))]
    if len(wrong):
        raise InputError(f"{what} must lie in {least} … {most}{note}, not {wrong[0].item():g}")
