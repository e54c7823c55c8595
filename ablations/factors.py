"""The factors of a study: what is varied, and over which levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import operators
from ablations import nodes
from models import targets
from operators.errors import InputError, check_choice, check_number

REGISTRY = "registry"
"""`levels: registry` are all registered mixers, `levels: registry/PRESET` those that have that shell preset.

`without` leaves some of them out.
"""


BUDGET, DATASETS = "budget", "datasets"
ROLES = (BUDGET, DATASETS)
BUDGET_KEYS = {
    "trainer.max_steps": "optimiser steps",
    "trainer.max_epochs": "epochs",
    "data.subset": "share of the training images",
    "model.match": "",
}
"""Keys that can be a budget, and what they count; `model.match` says itself what it counts."""


@dataclass(frozen=True)
class Factor:
    """What `key` (a key or group of run.py) is set to; `labels` name the levels.

    Factors that share a key have lists, which are joined, or mappings, which are merged.

    `role`: of a `budget`, the report draws curves of the arms over its levels; of `datasets`, it puts the arms together
    over data sets; None: of neither.
    """

    name: str
    key: str
    levels: tuple[Any, ...]
    labels: tuple[str, ...]
    role: str | None = None

    @classmethod
    def read(cls, name: str, node: Any) -> Factor:
        """From the block's `factors.NAME`."""
        allowed = ("key", "levels", "without", "labels", "role")
        given = nodes.mapping(f"factor {name}", node, allowed, ("key", "levels"))
        levels, without = given["levels"], given.get("without")
        if isinstance(levels, str) and levels.split("/")[0] == REGISTRY:
            preset, left_out = levels.partition("/")[2], nodes.items(f"without of factor {name}", without or [])
            for mixer in left_out:
                check_choice(f"without of factor {name}", mixer, operators.names())
            registered = [mixer for mixer in operators.names() if mixer not in left_out]
            levels = [mixer for mixer in registered if not preset or preset in operators.describe(mixer).shells]
        elif without is not None:
            raise InputError(f"factor {name} has without={without!r}, which needs levels: {REGISTRY}")
        if not isinstance(levels, Sequence) or isinstance(levels, str) or len(levels) < 2:
            raise InputError(f"factor {name} has levels {levels!r}: it needs a list of two or more")
        named = given.get("labels")
        labels = (
            [nodes.label(level) for level in levels]
            if named is None
            else [nodes.switch_label(item) for item in nodes.items(name, named)]
        )
        if len(levels) > nodes.MOST_LEVELS:
            raise InputError(f"factor {name} has {len(levels):,} levels: at most {nodes.MOST_LEVELS:,} are allowed")
        if len(labels) != len(levels) or len(set(labels)) != len(labels):
            raise InputError(
                f"factor {name} has labels {labels}: one for each of its {len(levels)} levels, no two alike"
            )
        for label in labels:
            if not label.isprintable() or not 0 < len(label.strip()) <= 2 * nodes.LONGEST_NAME:
                raise InputError(
                    f"factor {name} has the label {label!r}: give labels of 1 to {2 * nodes.LONGEST_NAME} letters"
                )
        if given.get("role") is not None:
            check_choice(f"role of factor {name}", given["role"], ROLES)
        factor = cls(
            nodes.check_name("factor", name), nodes.key(given["key"]), tuple(levels), tuple(labels), given.get("role")
        )
        if factor.role == BUDGET:
            _check_budget(factor)
        return factor

    @property
    def written(self) -> dict[str, Any]:
        """The factor as a node that `read` takes back."""
        content = {"key": self.key, "levels": list(self.levels), "labels": list(self.labels)}
        return content | ({"role": self.role} if self.role else {})

    def keep(self, labels: Sequence[str]) -> dict[str, Any]:
        """The factor as a node that `read` takes back, with those of its levels alone whose label is among `labels`."""
        pairs = [(level, label) for level, label in zip(self.levels, self.labels, strict=True) if label in labels]
        return {**self.written, "levels": [level for level, _ in pairs], "labels": [label for _, label in pairs]}

    @property
    def amounts(self) -> dict[str, float]:
        """Label -> the number that its level is, of a budget."""
        return {label: _amount(self.key, level) for label, level in zip(self.labels, self.levels, strict=True)}

    @property
    def counts(self) -> str:
        """What a budget counts, in words."""
        if self.key == "model.match":
            return {"params": "parameters", "macs": "MACs"}.get(next(iter(self.levels[0])), next(iter(self.levels[0])))
        return BUDGET_KEYS[self.key]

    def label(self, value: Any) -> str:
        """The level that a label, or a level's value, means."""
        for level, name in zip(self.levels, self.labels, strict=True):
            if value == level and type(value) is type(level):
                return name
        return check_choice(f"level of factor {self.name}", nodes.switch_label(value), self.labels)


def _check_budget(factor: Factor) -> None:
    check_choice(f"key of the budget {factor.name}", factor.key, BUDGET_KEYS)
    amounts = list(factor.amounts.values())
    kinds = {tuple(level) for level in factor.levels if isinstance(level, Mapping)}
    if len(set(amounts)) < len(amounts) or min(amounts) <= 0 or len(kinds) > 1:
        raise InputError(
            f"factor {factor.name} has levels {list(factor.levels)}: a budget needs numbers above 0, of one kind, no "
            "two alike"
        )


def _amount(key: str, level: Any) -> float:
    if isinstance(level, Mapping):
        return float(next(iter(targets.parse(level).values())))
    check_number(f"{key} as a budget", level)
    return float(level)
