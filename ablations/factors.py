"""The factors of a study: what is varied, and over which levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import operators
from ablations import nodes
from operators.errors import InputError, check_choice

REGISTRY = "registry"
"""`levels: registry` are all registered mixers, `levels: registry/PRESET` those that have that shell preset."""


@dataclass(frozen=True)
class Factor:
    """What `key` (a key or group of run.py) is set to; `labels` name the levels.

    Factors that share a key have lists, which are joined, or mappings, which are merged.
    """

    name: str
    key: str
    levels: tuple[Any, ...]
    labels: tuple[str, ...]

    @classmethod
    def read(cls, name: str, node: Any) -> Factor:
        """From the block's `factors.NAME`."""
        given = nodes.mapping(f"factor {name}", node, ("key", "levels", "labels"), ("key", "levels"))
        levels = given["levels"]
        if isinstance(levels, str) and levels.split("/")[0] == REGISTRY:
            preset = levels.partition("/")[2]
            levels = [one for one in operators.names() if not preset or preset in operators.describe(one).shells]
        if not isinstance(levels, Sequence) or isinstance(levels, str) or len(levels) < 2:
            raise InputError(f"factor {name} has levels {levels!r}: it needs a list of two or more")
        named = given.get("labels")
        labels = (
            [nodes.label(one) for one in levels]
            if named is None
            else [nodes.switch_label(one) for one in nodes.items(name, named)]
        )
        if len(levels) > nodes.MOST_LEVELS:
            raise InputError(f"factor {name} has {len(levels):,} levels: at most {nodes.MOST_LEVELS:,} are allowed")
        if len(labels) != len(levels) or len(set(labels)) != len(labels):
            raise InputError(
                f"factor {name} has labels {labels}: one for each of its {len(levels)} levels, no two alike"
            )
        for one in labels:
            if not one.isprintable() or not 0 < len(one.strip()) <= 2 * nodes.LONGEST_NAME:
                raise InputError(
                    f"factor {name} has the label {one!r}: give labels of 1 to {2 * nodes.LONGEST_NAME} letters"
                )
        return cls(nodes.check_name("factor", name), nodes.key(given["key"]), tuple(levels), tuple(labels))

    def label(self, value: Any) -> str:
        """The level that a label, or a level's value, means."""
        for level, name in zip(self.levels, self.labels, strict=True):
            if value == level and type(value) is type(level):
                return name
        return check_choice(f"level of factor {self.name}", nodes.switch_label(value), self.labels)
