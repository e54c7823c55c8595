"""What `model.match` means for a run: the configuration carries the width that meets the budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from operators.errors import InputError
from tasks.config.schema import RunConfig


def in_numbers(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with its `model.match`, if it has one, in plain numbers.

    Raises:
        InputError: `model.hidden` is given as well, or the budget is none.
    """
    node = config["model"]
    if not isinstance(node, Mapping) or node.get("match") is None:
        return dict(config)
    if node.get("hidden") is not None:
        raise InputError(f"model.hidden={node['hidden']} and model.match exclude each other: the budget decides it")
    from models import match  # imports torch

    return {**config, "model": {**node, "match": match.parse(node["match"])}}


def settle(run: RunConfig) -> RunConfig:
    """`run` with the `model.hidden` that its budget, if it has one, means.

    Raises:
        InputError: as `in_numbers`, no width meets the budget, or no such model can be.
    """
    if run.model.get("match") is None:
        return run
    import tasks.data

    run = run.changed("model", in_numbers(run.plain)["model"])
    images = run.images(tasks.data.describe(**run.data))
    return run.changed("model", {**run.model, "hidden": run.build(images, device="meta").spec.hidden})
