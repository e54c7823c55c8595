"""The states that a recurrence starts from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from operators.errors import InputError


class InitialStates(nn.Module):
    """What a recurrence holds before its first token: nothing, until `learn` gives it states that can be trained.

    Args:
        shape: of a state.
        sequences: how many sequences the recurrence reads in one call of its core, each from a state of its own.

    Attributes:
        weight: (conditions, sequences, *shape), or None, which stands for zero.
        chosen: the condition (B,) of each image, if there are several.
    """

    def __init__(self, *shape: int, sequences: int = 1) -> None:
        super().__init__()
        self.shape, self.sequences = shape, sequences
        self.weight: nn.Parameter | None
        self.register_parameter("weight", None)
        self.chosen: Tensor | None = None

    @property
    def learned(self) -> bool:
        """Whether the states are parameters, and not zero for good."""
        return self.weight is not None

    def learn(self, conditions: int, like: Tensor) -> None:
        """Make one zero state for each condition and sequence, in the type and on the device of a tensor."""
        size = (conditions, self.sequences, *self.shape)
        self.weight = nn.Parameter(torch.zeros(size, dtype=like.dtype, device=like.device))

    def forward(self, batch: int, sequence: int = 0) -> Tensor | None:
        """The states (B, *shape) of a batch, from which it reads a sequence; None for zero.

        Raises:
            InputError: several conditions, and none chosen for each image of the batch.
        """
        if self.weight is None:
            return None
        states = self.weight[:, sequence]
        if len(states) == 1:
            return states.expand(batch, *self.shape)
        if self.chosen is None or len(self.chosen) != batch:
            chosen = "None" if self.chosen is None else f"one of {len(self.chosen)}"
            raise InputError(
                f"there are states for {len(states)} conditions: a batch of {batch} needs a condition of as many, "
                f"not {chosen}"
            )
        return states[self.chosen]

    def extra_repr(self) -> str:
        return f"{tuple(self.shape)}, sequences={self.sequences}"
