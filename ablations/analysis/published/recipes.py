"""The published recipes (`recipes.yaml`), and which of their entries an arm is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

import yaml  # type: ignore[import-untyped]

import operators
from tasks.config.overrides import parse

FILE = "recipes.yaml"
MIXER = "mixer"


@dataclass(frozen=True, eq=False)
class RecipeEntry:
    """A mixer with its published scores, one for each model of the recipe; `settings` are those of run.py."""

    name: str
    settings: Mapping[str, Any]
    scores: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class PublishedRecipe:
    """Mixers that one paper trained alike, in models of one or more sizes; more of `measure` is better."""

    name: str
    source: str
    measure: str
    models: tuple[str, ...]
    entries: tuple[RecipeEntry, ...]


@cache
def published_recipes() -> tuple[PublishedRecipe, ...]:
    """The recipes of the file, in its order."""
    nodes = yaml.safe_load((files("ablations.analysis.published") / FILE).read_text(encoding="utf-8"))
    return tuple(
        PublishedRecipe(
            name=node["name"],
            source=node["source"],
            measure=node["measure"],
            models=tuple(node["models"]),
            entries=tuple(
                RecipeEntry(entry["name"], _complete(settings(entry["settings"])), tuple(entry["scores"]))
                for entry in node["entries"]
            ),
        )
        for node in nodes
    )


def settings(overrides: Sequence[str]) -> dict[str, Any]:
    """Key -> value of overrides of run.py, in plain containers, which are not to be changed."""
    return dict(map(_setting, overrides))


@lru_cache(maxsize=4096)
def _setting(text: str) -> tuple[str, Any]:
    """Key and value of one override: the arms of a study repeat few of them."""
    (override,) = parse([text])
    return override.key_or_group, override.value()


def beside(entry: RecipeEntry, arm: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an arm's settings have beside the entry's; None where the arm is another one.

    Settings of a mixer that the arm does not have are at their defaults.
    """
    complete = _complete(arm)
    if any(key not in complete or complete[key] != value for key, value in entry.settings.items()):
        return None
    return {key: value for key, value in arm.items() if key not in entry.settings}


def _complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the defaults of their mixer, if it is one that is registered."""
    name = given.get(MIXER)
    defaults = operators.describe(name).defaults if name in operators.names() else {}
    named = {f"{MIXER}.{key}": list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    return {**named, **given}
