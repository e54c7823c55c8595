"""Budget matching: the width of the feed-forward networks that gives a model a wanted size.

`dim`, `depth` and everything else stay, so that arms with different mixers keep the shape and, initialisation being
keyed by (seed, name), the very bits of all that is neither mixer nor feed-forward network. Parameters and
multiply-accumulates are affine in the width, which two models without storage determine and a third verifies.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from models.cost import ModelCost
from models.trunk import Trunk
from operators.errors import InputError, check_names, check_number

TOLERANCE = 0.02
"""Largest relative distance from the target."""
ALIGNED, ALIGNMENT = 0.005, 8
"""A multiple of 8, which matrix units like, is taken where it costs no more than this: two arms are then within 1 %."""
WIDEST = 64
"""Largest width considered, in multiples of `dim`; the usual one is 4."""

_BUDGETS = {"params": "parameters", "macs": "macs"}
_SUFFIXES = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([KMG]?)", re.IGNORECASE)


@dataclass(frozen=True)
class Match:
    """How a budget is met.

    Attributes:
        budget: `params` or `macs` (of one image at the nominal size).
        target: what was asked for.
        hidden: width of the feed-forward networks.
        value: what the model has.
    """

    budget: str
    target: int
    hidden: int
    value: int

    @property
    def residual(self) -> float:
        """Relative distance from the target; positive: more than asked for."""
        return self.value / self.target - 1

    def record(self) -> dict[str, Any]:
        """For `metrics.json`: flat, every key begins with `match/`."""
        facts = {**vars(self), "residual": self.residual}
        return {f"match/{name}": value for name, value in facts.items()}


def parse(match: Any) -> dict[str, int]:
    """`{params: N}` or `{macs: N}` with N as a whole number, from a number or a text such as `5M` or `1.2G`.

    Raises:
        InputError: something else.
    """
    if not isinstance(match, Mapping) or len(match) != 1:
        raise InputError(f"model.match={match!r} must be one budget: {{params: 5M}} or {{macs: 1.2G}}")
    check_names("model.match", map(str, match), _BUDGETS)
    ((budget, given),) = match.items()
    number = given
    if isinstance(given, str):
        found = _NUMBER.fullmatch(given.strip())
        if found is None:
            raise InputError(f"model.match.{budget}={given!r} must be a number, with K, M or G if need be: 5M, 1.2G")
        number = float(found[1]) * _SUFFIXES[found[2].upper()]
    check_number(f"model.match.{budget}", number, least=1)
    return {str(budget): round(number)}


def solve(match: Any, build: Callable[[int], Trunk]) -> Match:
    """The width that meets the budget.

    Args:
        match: see `parse`.
        build: the model with that width of its feed-forward networks; called where tensors have no storage.

    Raises:
        InputError: no width comes within `TOLERANCE`; names the nearest budgets that one can meet.
    """
    ((budget, target),) = parse(match).items()

    def model(hidden: int) -> Trunk:
        with torch.device("meta"):
            return build(hidden)

    first = model(1)
    least = _size(first.cost(), budget)
    slope = _size(model(2).cost(), budget) - least

    def size(hidden: int) -> int:
        return least + (hidden - 1) * slope

    most = WIDEST * first.spec.dim
    exact = 1 + (target - least) / slope
    low = min(max(math.floor(exact), 1), most)
    around = (low, min(low + 1, most))
    hidden = min(around, key=lambda width: abs(size(width) - target))
    aligned = ALIGNMENT * round(exact / ALIGNMENT)
    if ALIGNMENT <= aligned <= most and abs(size(aligned) / target - 1) <= ALIGNED:
        hidden = aligned
    if abs(size(hidden) / target - 1) > TOLERANCE:
        raise InputError(_unreachable(budget, target, {width: size(width) for width in around}))
    return verify(match, model(hidden))


def verify(match: Any, model: Trunk) -> Match:
    """How `model` meets the budget for which its width was solved earlier.

    Raises:
        InputError: it does not.
    """
    ((budget, target),) = parse(match).items()
    found = Match(budget, target, model.spec.ffn_width, _size(model.cost(), budget))
    if abs(found.residual) > TOLERANCE:
        raise InputError(
            f"model.hidden={found.hidden} does not meet model.match.{budget}={target:,}: the model has "
            f"{found.value:,}; leave model.hidden out, and it is solved"
        )
    return found


def _size(cost: ModelCost, budget: str) -> int:
    return int(getattr(cost, _BUDGETS[budget]))


def _unreachable(budget: str, target: int, near: Mapping[int, int]) -> str:
    below = max(((size, hidden) for hidden, size in near.items() if size <= target), default=None)
    above = min(((size, hidden) for hidden, size in near.items() if size > target), default=None)
    listed = " and ".join(
        f"{side} {found[0]:,} (model.hidden={found[1]})" if found else f"none {side}"
        for side, found in (("below", below), ("above", above))
    )
    return f"model.match.{budget}={target:,} cannot be met within {TOLERANCE:.0%} by the width alone: nearest {listed}"
