"""What a study chooses on validation: levels of a key that is tuned for each arm, and directions of a search."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ablations import nodes
from operators.errors import InputError, check_number

MOST_EXTENSIONS = 20
"""Largest `extend`: how often the levels may grow beyond their ends."""


@dataclass(frozen=True)
class Tuning:
    """`key` of every arm is first set to the best of `levels` on validation, in short runs with `overrides`.

    The level is chosen anew inside each seed, in runs with that seed. So the luck of the choice is part of the spread
    over seeds. With `once` it is chosen at `seed` for all seeds: then it enters as if it were an effect of the arm.

    Where the first or the last level is the best, a better one may lie beyond: then up to `extend` further levels are
    tried there, each as far again as the last two are apart (as a ratio), for as long as they get better.
    """

    key: str
    levels: tuple[float, ...]
    overrides: tuple[str, ...] = ()
    extend: int = 0
    once: bool = False
    seed: int = 0

    @classmethod
    def read(cls, node: Any) -> Tuning:
        """From the study's `tuning`."""
        given = nodes.mapping("tuning", node, [field.name for field in fields(cls)], ("key", "levels"))
        levels = nodes.items("levels of tuning", given["levels"])
        if len(levels) > nodes.MOST_LEVELS:
            raise InputError(f"tuning has {len(levels):,} levels: at most {nodes.MOST_LEVELS:,} are allowed")
        for level in levels:
            check_number("level of tuning", level)
        if not levels:
            raise InputError("tuning has no levels")
        if not isinstance(given.get("once", False), bool):
            raise InputError(f"once of tuning={given['once']!r} must be true or false")
        if "seed" in given and not given.get("once"):
            raise InputError("seed of tuning needs once: true; else each seed has a level of its own")
        for name, most in (("seed", 2**32 - 1), ("extend", MOST_EXTENSIONS)):
            check_number(f"{name} of tuning", given.get(name, 0), least=0, most=most, integer=True)
        if given.get("extend") and (len(set(levels)) < 2 or min(levels) <= 0):
            raise InputError(f"extend of tuning needs two or more levels above 0, not {levels}")
        overrides = nodes.strings("overrides of tuning", given.get("overrides"))
        return cls(
            key=nodes.key(given["key"]),
            levels=tuple(levels),
            overrides=overrides,
            extend=given.get("extend", 0),
            once=given.get("once", False),
            seed=given.get("seed", 0),
        )

    @property
    def written(self) -> dict[str, Any]:
        """The tuning as a node that `read` takes back."""
        return {
            "key": self.key,
            "levels": list(self.levels),
            "overrides": list(self.overrides),
            "extend": self.extend,
            "once": self.once,
            **({"seed": self.seed} if self.once else {}),
        }

    @property
    def size(self) -> int:
        """How many trials choose a level, those included that may turn out to be needless."""
        return len(self.levels) + 2 * self.extend

    @property
    def beyond(self) -> tuple[tuple[float, float], ...]:
        """(level, the one that it goes beyond) of all that `extend` allows for."""
        if not self.extend:
            return ()
        ordered = sorted(set(self.levels))
        pairs = []
        for end, inner in ((ordered[0], ordered[1]), (ordered[-1], ordered[-2])):
            steps = [float(f"{end * (end / inner) ** count:.12g}") for count in range(self.extend + 1)]
            pairs += list(zip(steps[1:], steps[:-1], strict=True))
        return tuple(pairs)


@dataclass(frozen=True)
class Dimension:
    """A direction of the search: a range, or choices."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    int: bool = False
    choices: tuple[Any, ...] = ()

    @classmethod
    def read(cls, key: str, node: Any) -> Dimension:
        """From the study's `space.KEY`."""
        given = nodes.mapping(f"space of {key}", node, [field.name for field in fields(cls)])
        if ("choices" in given) == ("low" in given or "high" in given):
            raise InputError(f"space of {key} needs either low and high, or choices")
        if "choices" in given:
            choices = nodes.items(f"choices of {key}", given["choices"])
            if not 1 <= len(choices) <= nodes.MOST_LEVELS:
                raise InputError(f"space of {key} has {len(choices):,} choices: 1 to {nodes.MOST_LEVELS:,} are allowed")
            for choice in choices:
                if not isinstance(choice, None | bool | int | float | str):
                    raise InputError(f"space of {key} has the choice {choice!r}: it must be a text, a number or null")
            return cls(choices=tuple(choices))
        for name in ("log", "int"):
            if not isinstance(given.get(name, False), bool):
                raise InputError(f"{name} of {key}={given[name]!r} must be true or false")
        for end in ("low", "high"):
            check_number(f"{end} of {key}", given.get(end), integer=bool(given.get("int")))
        if not given["low"] < given["high"] or (given.get("log") and given["low"] <= 0):
            raise InputError(f"space of {key} needs low < high, and low > 0 for log")
        return cls(**given)

    @property
    def written(self) -> dict[str, Any]:
        """The dimension as a node that `read` takes back."""
        if self.choices:
            return {"choices": list(self.choices)}
        return {"low": self.low, "high": self.high, "log": self.log, "int": self.int}

    @property
    def first(self) -> Any:
        """One of its values."""
        return self.choices[0] if self.choices else self.low
