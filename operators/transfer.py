"""Models with selective scans on larger grids than the one they were trained on, without training.

With N_0 tokens in the nominal grid and N > N_0 in the one that is read, steps dt become

    rescaled   dt √(N_0 / N)                                                      (FlowState, arXiv 2508.05287)
    filtered   of each channel that after N_0 mean steps still holds a share of its state, the largest steps whose sum
               is at most that of N_0 mean steps, and zeros                       (LongMamba, arXiv 2504.16053)

Rescaled, a scan along lines fades over the same part of an image. A token whose step is zero neither fades the state
nor adds to it. LongMamba measures the sum of N_0 steps on training data beforehand; here each sequence has N_0 of its
own mean steps (`bound` in GATECH-EIC/LongMamba at 43c27f1, of the measured sum). `operators.scan.steps` does it.

    with operators.transfer.transferred(model, "rescaled"):
        logits = model(larger_images)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from operators.errors import InputError, check_choice, check_number
from operators.mixer import Mixer
from operators.mixers.scan.branch import Branch
from operators.scan.steps import WAYS, StepChange

REMEMBERED = 1e-3
"""The least share of its state that a channel which is filtered still holds after N_0 mean steps."""


@contextmanager
def transferred(model: nn.Module, way: str, *, remembered: float = REMEMBERED) -> Iterator[None]:
    """While open, the selective scans of `model` change their steps on grids larger than their mixers' nominal ones.

    The change stands in the model: threads that call it at the same time must read grids of one size.

    Args:
        model: a mixer, or a module that has some.
        way: `rescaled` or `filtered`.
        remembered: which channels are filtered, see `REMEMBERED`; 0: all.

    Raises:
        InputError: another way, or a model without a mixer that has a selective scan and a nominal grid.
    """
    check_choice("way", way, WAYS)
    check_number("remembered", remembered, least=0, most=1)
    mixers = transferable(model)

    def enter(mixer: nn.Module, given: tuple[Any, ...]) -> None:
        assert isinstance(mixer, Mixer)
        assert mixer.grid is not None
        share = math.prod(mixer.grid) / math.prod(given[0].shape[1:-1])
        _change(mixer, StepChange(way, share, remembered) if share < 1 else None)

    def leave(mixer: nn.Module, *_: Any) -> None:
        _change(mixer, None)

    with ExitStack() as hooks:
        for mixer in mixers:
            hooks.callback(mixer.register_forward_pre_hook(enter).remove)
            hooks.callback(mixer.register_forward_hook(leave, always_call=True).remove)
        yield


def transferable(model: nn.Module) -> list[Mixer]:
    """The mixers of `model` that have a selective scan and a nominal grid, not none: else `InputError`."""
    mixers = [mixer for mixer in model.modules() if isinstance(mixer, Mixer) and mixer.grid and _scans(mixer)]
    if not mixers:
        raise InputError("no mixer of this model has a selective scan and a nominal grid: there is nothing to transfer")
    return mixers


def _change(mixer: nn.Module, change: StepChange | None) -> None:
    for part in mixer.modules():
        if isinstance(part, Branch):
            part.step_change = change


def _scans(mixer: Mixer) -> bool:
    return any(isinstance(part, Branch) for part in mixer.modules())
