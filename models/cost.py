"""What a model costs for one image."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelCost:
    """Cost of a model for one image, by the rules of `operators.Cost` (element-wise work is not counted).

    Attributes:
        parameters: learnable numbers, mixers included.
        macs: multiply-accumulates of everything: stem, mixers, feed-forward networks, head.
        mixer_macs: the mixers' share of `macs` (their projections and their mixing).
    """

    parameters: int
    macs: int
    mixer_macs: int
