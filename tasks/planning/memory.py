"""Whether a run can fit into memory at all, from its configuration alone: before anything is allocated.

What is added up is certain to be needed; that it fits is no promise. The plan says more, and takes longer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

import models
from models.presets import preset
from models.spec import IsotropicSpec, StageMixers, listed
from operators.benchmark.measuring.guard import available_bytes
from operators.errors import InputError, check_choice
from tasks.config.images import Images
from tasks.config.schema import RunConfig
from tasks.run.building import dtypes

DEVICES = {"auto": None, "cpu": "cpu", "gpu": "cuda", "cuda": "cuda"}
"""Kinds of devices whose memory and speed are known here, by `trainer.accelerator`."""

_SHARED = ("fsdp", "deepspeed", "xla")
"""How strategies begin that split the weights between devices."""


def device(accelerator: str) -> tuple[str, bool]:
    """The kind of device that `trainer.accelerator` means, and whether it is here.

    Raises:
        InputError: a kind of which nothing is known here.
    """
    kind = DEVICES[check_choice("trainer.accelerator with mode=plan", accelerator, DEVICES)]
    there = torch.cuda.is_available()
    kind = kind or ("cuda" if there else "cpu")
    return kind, kind == "cpu" or there


def check(run: RunConfig, images: Images, batch_size: int) -> None:
    """Refuse a run that cannot fit into the memory that is free here.

    Args:
        run: what is asked for.
        images: that the model is made for.
        batch_size: images of a step, over all devices; 0 where none are read.

    Raises:
        InputError: says what it would need at least, what is free, and what makes it smaller.
    """
    asked = run.trainer
    kind, here = device(asked.accelerator) if asked.accelerator in DEVICES else ("cpu", True)
    if here:
        processes = asked.num_nodes * (asked.devices if isinstance(asked.devices, int) else 1)
        _check(run, images, max(1, batch_size // processes) if batch_size else 0, kind)


def _check(run: RunConfig, images: Images, batch: int, device: str) -> None:
    weights, model = _weights(run, images)
    item = dtypes(run.trainer.precision)[0].itemsize
    training = run.mode == "fit" and not run.trainer.strategy.startswith(_SHARED)
    copies = 4 + bool(run.trainer.ema) if training else 1  # gradients, two moments, an average
    pixels = images.channels * math.prod(images.image_size)
    kept = _stream(run, model, images, every=training and not model.spec.checkpointing)
    parts = {
        "model.dim, model.depth, model.hidden or what the mixer stores": item * weights * copies,
        "data.batch_size, data.resolution or model.dim": batch * (4 * pixels + item * kept),
    }
    host = {"model.dim, model.depth, model.hidden or what the mixer stores": item * weights}
    if run.sample is not None and (run.mode != "fit" or run.trainer.test):
        drawn = run.sample.n * pixels + 8 * min(run.sample.n, run.sample.batch_size) * math.prod(images.input)
        host["sample.n or sample.batch_size"] = parts["sample.n or sample.batch_size"] = drawn
    _refuse(parts, device)
    if device != "cpu":
        _refuse(host, "cpu")


def _stream(run: RunConfig, model: models.Trunk, images: Images, *, every: bool) -> int:
    """How many numbers the tokens of one image are, in front of every block of the run's model or of the first alone.

    Args:
        run: what is asked for.
        model: the run's, of which a trunk of one width may be shorter than asked for.
        images: that the model is made for.
        every: whether the tokens of every block count.
    """
    height, width = images.input[1:]
    grids = model.grids(height, width)
    sizes = [dim * rows * columns for dim, (rows, columns) in zip(model.block_dims, grids, strict=True)]
    if not every:
        return sizes[0]
    return sum(sizes) if len(model.spec.dims) > 1 else sizes[0] * (_depth(run) or len(sizes))


def _depth(run: RunConfig) -> int:
    """Blocks of the run's model, where it has one width; else 0."""
    spec = preset(run.model["name"])
    depth = run.model.get("depth") or (spec.depth if isinstance(spec, IsotropicSpec) else 0)
    return depth if isinstance(spec, IsotropicSpec) and isinstance(depth, int) else 0


def _weights(run: RunConfig, images: Images) -> tuple[int, models.Trunk]:
    """How many numbers parameters and buffers are, and the model without storage.

    A trunk of one width is made as deep as the pattern is long, and its blocks are counted as often as they come.
    """
    pattern = listed(run.mixers)
    depth = _depth(run)
    if depth < len(pattern) or isinstance(run.mixers, StageMixers):
        model = run.build(images, device="meta", match=None)
        return _numbers(model), model
    short = run.build(images, device="meta", match=None, depth=len(pattern))
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
