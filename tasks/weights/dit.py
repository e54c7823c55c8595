"""DiTs and SiTs in the layout of their authors' code (arXiv 2212.09748, 2401.08740), whose files look the same.

The trunk holds them exactly with `shell=published`, `model.gelu=tanh`, `model.positions=learned` (their table is fixed
to sines and cosines in another order than ours) and the `model.time_scale` of either. What differs:

* Half of their output channels are a variance that DiT learns (and SiT carries along unused); they are left out.
* Their modulation has the shift before the scale, their patches have the channel last.
* DiT's time is the step of a diffusion from data (0) to noise (999); ours runs from noise (0) to data (1), so that its
  step is 999 - 1000 t. The cosines and sines of a difference are sums of products of those of its parts, and so the
  reversal is a linear map of the embedding, which goes into the first layer after it.
* DiT predicts the noise, and its steps are those of the path `vp`: `task.prediction=noise`, `task.path=vp`. SiT
  predicts the velocity of the linear path.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from models import DiffusionTransformer
from models.isotropic.conditioning import FREQUENCIES
from operators.errors import InputError
from tasks.weights import state
from tasks.weights.state import Weights

Kind = Literal["dit", "sit"]
LAST_STEP = 999
"""Number of the noisiest step of DiT's diffusion, which counts from 0."""
TIME_SCALES = {"dit": 1000, "sit": 1}


def convert(weights: Weights, model: DiffusionTransformer, kind: Kind) -> dict[str, Tensor]:
    """The state of `model` from the authors' weights; without the label table where that has other classes.

    Raises:
        InputError: weights that the model cannot hold, with the overrides under which it could; or that no model can.
    """
    shape = weights.shape("x_embedder.proj.weight")
    if len(shape) != 4 or shape[2] != shape[3]:
        raise InputError(f"{weights.where} has x_embedder.proj.weight of shape {tuple(shape)}, not of square patches")
    dim, channels, patch, _ = shape
    hidden, depth = weights.shape("blocks.0.mlp.fc1.weight")[0], weights.blocks()
    asked = {"dim": dim, "depth": depth, "patch": patch, "hidden": hidden, "positions": "learned", "gelu": "tanh"}
    needed = state.differences(model, {**asked, "time_scale": TIME_SCALES[kind]})
    state.refuse(weights.where, state.check_mixers(model, dim) | needed)
    if channels != model.stem.in_channels:
        raise InputError(
            f"{weights.where} is for images or latents of {channels} channels, and these have {model.stem.in_channels}"
        )
    own = {
        "stem.weight": weights.take("x_embedder.proj.weight", *shape).flatten(1),
        "stem.bias": weights.take("x_embedder.proj.bias", dim),
        "positions.table": _positions(weights, model, dim),
        "time.up.weight": weights.take("t_embedder.mlp.0.weight", dim, FREQUENCIES),
        "time.up.bias": weights.take("t_embedder.mlp.0.bias", dim),
        "time.down.weight": weights.take("t_embedder.mlp.2.weight", dim, dim),
        "time.down.bias": weights.take("t_embedder.mlp.2.bias", dim),
    }
    if kind == "dit":
        own["time.up.weight"] = reversed_time(own["time.up.weight"])
    for number in range(depth):
        block = f"blocks.{number}"
        own |= state.attention(weights, block, f"{block}.mixer", dim)
        own |= state.ffn(weights, block, f"{block}.ffn", dim, hidden)
        own |= _modulation(weights, f"{block}.adaLN_modulation.1", f"{block}.modulation.linear", dim, 6)
    own |= _modulation(weights, "final_layer.adaLN_modulation.1", "head.modulation.linear", dim, 2)
    own |= _output(weights, dim, channels, patch)
    rows = weights.shape("y_embedder.embedding_table.weight")[0]
    labels = weights.take("y_embedder.embedding_table.weight", rows, dim)
    if rows == model.num_classes + 1:
        own["label.weight"] = labels
    weights.finish()
    return own


def reversed_time(weight: Tensor) -> Tensor:
    """The layer (C, 256) on the embedding of 1000 t that is equal to `weight` on that of 999 - 1000 t; float64."""
    half = FREQUENCIES // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10000.0) / half))
    cosine, sine = (LAST_STEP * frequencies).cos(), (LAST_STEP * frequencies).sin()
    on_cosine, on_sine = weight.double().chunk(2, dim=1)
    return torch.cat((on_cosine * cosine + on_sine * sine, on_cosine * sine - on_sine * cosine), dim=1)


def _positions(weights: Weights, model: DiffusionTransformer, dim: int) -> Tensor:
    shape = weights.shape("pos_embed")
    return state.table(weights, weights.take("pos_embed", 1, shape[1], dim)[0], model.grid)


def _modulation(weights: Weights, theirs: str, ours: str, dim: int, count: int) -> dict[str, Tensor]:
    """Shift and scale change places."""
    order = [1, 0, 2, 4, 3, 5][:count]
    weight, bias = weights.take(f"{theirs}.weight", count * dim, dim), weights.take(f"{theirs}.bias", count * dim)
    return {
        f"{ours}.weight": weight.view(count, dim, dim)[order].flatten(0, 1),
        f"{ours}.bias": bias.view(count, dim)[order].flatten(),
    }


def _output(weights: Weights, dim: int, channels: int, patch: int) -> dict[str, Tensor]:
    """Rows in the order channel, row, column, without those of a variance."""
    rows = weights.shape("final_layer.linear.weight")[0]
    if rows not in (patch**2 * channels, 2 * patch**2 * channels):
        raise InputError(f"{weights.where} has {rows} outputs for patches of {patch}×{patch}×{channels}")
    weight = weights.take("final_layer.linear.weight", rows, dim).view(patch, patch, -1, dim)
    bias = weights.take("final_layer.linear.bias", rows).view(patch, patch, -1)
    return {
        "head.linear.weight": weight[:, :, :channels].permute(2, 0, 1, 3).reshape(-1, dim),
        "head.linear.bias": bias[:, :, :channels].permute(2, 0, 1).flatten(),
    }
