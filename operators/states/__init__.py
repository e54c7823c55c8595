"""Recurrences that start from learned states, as adaptation of a trained model or as its condition (state tuning).

A selective scan and a linear recurrence hold nothing before their first token. With a learned state S_0 in its place,
one for each recurrence and direction, the frozen model is adapted by few parameters, and with one S_0 for each class
told which class is meant. S_0 = 0 at the start, where the model is what it was before. RWKV's models are adapted so
(arXiv 2504.05097, standard state tuning), at learning rates as high as 1 (BlinkDL/RWKV-LM README.md at 2cf92ee).

    tuned = operators.states.tuned(model, conditions=10)
    logits = tuned(images, condition=classes)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from operators.errors import InputError, check_choice, check_number
from operators.mixer import Core, Mixer
from operators.states.initial import InitialStates

__all__ = ["InitialStates", "Tuned", "tuned"]

WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class Tuned(nn.Module):
    """A model whose recurrences start from learned states; `tuned` makes it.

    Attributes:
        model: the model, in whose recurrences the states are.
        conditions: how many states there are for each recurrence and direction.
    """

    def __init__(self, model: nn.Module, conditions: int) -> None:
        super().__init__()
        self.model, self.conditions = model, conditions

    def forward(self, *given: Any, condition: Tensor | None = None, **named: Any) -> Any:
        """What the model gives for these arguments, when it starts from the states of a condition.

        Args:
            given: of the model.
            condition: (B,), whole numbers from 0; may be left out if there is but one.
            named: further arguments of the model.

        Raises:
            InputError: no condition among several, or one that is not there.
        """
        self.choose(condition)
        return self.model(*given, **named)

    def choose(self, condition: Tensor | None) -> None:
        """Set the condition of the calls that follow, for those that call `model` itself. Raises as `forward`."""
        if condition is not None:
            self._check(condition)
            condition = condition.long()
        elif self.conditions > 1:
            raise InputError(f"condition must say for each image which of the {self.conditions} states are meant")
        for initial in _served(self.model):
            initial.chosen = condition

    @property
    def states(self) -> dict[str, nn.Parameter]:
        """The learned states (conditions, sequences, …) by their names in `named_parameters`."""
        modules = self.named_modules()
        each = {name: part.weight for name, part in modules if isinstance(part, InitialStates)}
        return {f"{name}.weight": weight for name, weight in each.items() if weight is not None}

    def _check(self, condition: Tensor) -> None:
        fits = condition.ndim == 1 and condition.dtype in WHOLE
        if not torch.compiler.is_compiling():
            fits = fits and bool(((condition >= 0) & (condition < self.conditions)).all())
        if not fits:
            shown = f"{condition.dtype} of shape {tuple(condition.shape)}"
            raise InputError(f"condition must hold whole numbers (B,) from 0 to {self.conditions - 1}, not {shown}")


def tuned(model: nn.Module, conditions: int = 1, *, freeze: bool = True) -> Tuned:
    """Give every recurrence of `model` that can start from a state a learned one, zero at first.

    The states become parameters of the model, which is changed in place: its state dict has them from here on, under
    `initial.weight`, and its cost counts them. Optimisers should not decay them, as its `no_weight_decay` says.

    Args:
        model: a mixer, or a module that has some.
        conditions: how many states each recurrence has, such as the number of classes.
        freeze: whether all other parameters stop being trained.

    Raises:
        InputError: a model that has no such recurrence, or has states already.
    """
    check_number("conditions", conditions, least=1, integer=True)
    check_choice("freeze", freeze, (True, False))
    served = _served(model)
    if not served:
        names = ", ".join(dict.fromkeys(part.card.name for part in model.modules() if isinstance(part, Mixer)))
        raise InputError(f"no recurrence of this model can start from a state; its mixers are: {names or 'none'}")
    if any(initial.weight is not None for initial in served):
        raise InputError("this model has learned states already")
    if freeze:
        model.requires_grad_(False)
    for owner in list(model.modules()):
        for part in owner.children():
            if isinstance(part, InitialStates):
                part.learn(conditions, next(owner.parameters()))
    for core in [part for part in model.modules() if isinstance(part, Core)]:
        own = [f"{name}.weight" for name, part in core.named_modules() if isinstance(part, InitialStates)]
        core.no_weight_decay = core.no_weight_decay | frozenset(own)
    return Tuned(model, conditions)


def _served(model: nn.Module) -> list[InitialStates]:
    return [part for part in model.modules() if isinstance(part, InitialStates)]
