"""What `model.match` means for a run: the configuration carries the width that meets the budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from operators.errors import InputError


def settle(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with `model.match` in plain numbers and, unless a checkpoint decides, with the `model.hidden` it means.

    Raises:
        InputError: `model.hidden` is given as well, the budget is none or no width meets it, or no such model can be.
    """
    node = config["model"]
    if not isinstance(node, Mapping) or node.get("match") is None:
        return dict(config)
    if node.get("hidden") is not None:
        raise InputError(f"model.hidden={node['hidden']} and model.match exclude each other: the budget decides it")
    from models import match as matching  # imports torch

    model = {**node, "match": matching.parse(node["match"])}
    if config["ckpt"] is None:
        model["hidden"] = _solve({**config, "model": model})
    return {**config, "model": model}


def _solve(config: Mapping[str, Any]) -> int:
    import models
    import tasks.data
    from models import match as matching
    from tasks.config import schema

    run = schema.parse(config)
    data = tasks.data.describe(**run.data)
    channels, height, width = run.input_shape(data.channels, *data.image_size)
    shape: dict[str, Any] = {"in_channels": channels, "num_classes": data.num_classes}
    fixed = {key: value for key, value in run.model.items() if key not in ("hidden", "match")}

    def build(hidden: int) -> models.Trunk:
        return models.create(**fixed, hidden=hidden, mixers=run.mixers, image_size=(height, width), **shape)

    return matching.solve(run.model["match"], build).hidden
