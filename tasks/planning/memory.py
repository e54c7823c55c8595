"""Whether a run can fit into memory at all, from its configuration alone: before anything is allocated.

What is added up is certain to be needed; that it fits is no promise. The plan says more, and takes longer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

import models
from models import MixerSpec
from models.spec import PRESETS
from operators.benchmark.measuring.guard import available_bytes
from operators.errors import InputError
from tasks.config.schema import RunConfig

_SHARED = ("fsdp", "deepspeed", "xla")
"""How strategies begin that split the weights between devices."""


def check(run: RunConfig, shape: Mapping[str, Any], batch: int, device: str) -> None:
    """Refuse a run that cannot fit.

    Args:
        run: what is asked for.
        shape: of the images and of what the model takes of one, as in a checkpoint's `data`.
        batch: images of a step on one device; 0 where none are read.
        device: `cpu` or `cuda`.

    Raises:
        InputError: says what it would need at least, what is free, and what makes it smaller.
    """
    with overflow_refused():
        weights, model = _weights(run, shape)
    item = {"64-true": 8, "16-true": 2, "bf16-true": 2}.get(run.trainer.precision, 4)
    training = run.mode == "fit" and not run.trainer.strategy.startswith(_SHARED)
    copies = 4 + bool(run.trainer.ema) if training else 1  # gradients, two moments, an average
    pixels = shape["channels"] * math.prod(shape["image_size"])
    tokens = math.prod(shape["input"][1:]) // model.spec.patch**2
    kept = model_depth(run, model) if training and not model.spec.checkpointing else 1
    parts = {
        "model.dim, model.depth, model.hidden or what the mixer stores": item * weights * copies,
        "data.batch_size, data.resolution or model.dim": batch * (4 * pixels + item * tokens * model.spec.dim * kept),
    }
    host = {"model.dim, model.depth, model.hidden or what the mixer stores": item * weights}
    if run.sample is not None and (run.mode != "fit" or run.trainer.test):
        drawn = run.sample.n * pixels + 8 * min(run.sample.n, run.sample.batch_size) * math.prod(shape["input"])
        host["sample.n or sample.batch_size"] = parts["sample.n or sample.batch_size"] = drawn
    _refuse(parts, device)
    if device != "cpu":
        _refuse(host, "cpu")


def model_depth(run: RunConfig, model: models.Trunk) -> int:
    """Blocks of the run's model, of which `model` may be a shorter one."""
    given = run.model.get("depth")
    return model.spec.depth if given is None else int(given)


class overflow_refused:  # noqa: N801 - a context manager, used like a function
    """Where a size overflows what torch can count in, nothing could hold it.

    Raises:
        InputError: instead of torch's error.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, RuntimeError | OverflowError | TypeError) and "verflow" in str(error):
            raise InputError("the sizes of model, mixer and data multiply to more than any memory holds") from error


def _weights(run: RunConfig, shape: Mapping[str, Any]) -> tuple[int, models.Trunk]:
    """How many numbers parameters and buffers are, from one period of the pattern, and that model without storage."""
    pattern: Sequence[MixerSpec] = [run.mixers] if isinstance(run.mixers, MixerSpec) else run.mixers
    params = {key: value for key, value in run.model.items() if key != "match"}
    channels, height, width = shape["input"]

    def build(**changed: Any) -> models.Trunk:
        with torch.device("meta"):
            return models.create(
                **{**params, **changed},
                mixers=run.mixers,
                image_size=(height, width),
                in_channels=channels,
                num_classes=shape["num_classes"],
                seed=run.seed,
            )

    spec = PRESETS.get(params["name"])
    depth = params.get("depth") or (spec.depth if spec is not None else 0)
    if not isinstance(depth, int) or depth < len(pattern):
        return _numbers(build()), build()
    short = build(depth=len(pattern))
    sizes = [_numbers(block) for block in short.blocks]
    times, more = divmod(depth, len(sizes))
    return _numbers(short) - sum(sizes) + times * sum(sizes) + sum(sizes[:more]), short


def _numbers(module: nn.Module) -> int:
    return sum(tensor.numel() for tensor in (*module.parameters(), *module.buffers()))


def _refuse(parts: Mapping[str, int], device: str) -> None:
    need, free = sum(parts.values()), available_bytes(device)
    if need > free:
        largest = max(parts, key=lambda name: parts[name])
        raise InputError(
            f"the run needs at least {need / 2**30:,.1f} GiB of memory, and {free / 2**30:,.1f} GiB are free: "
            f"make {largest} smaller"
        )
