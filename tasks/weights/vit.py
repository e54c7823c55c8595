"""ViTs in the layout of timm's `VisionTransformer`, which DeiT's weights have too (arXiv 2010.11929, 2012.12877).

The trunk holds them exactly with `shell=published`, `model.pooling=class` and learned positions. What differs:
timm's qkv is one matrix, ours are two (q and k belong to the core, v to the shell); its class token has a position of
its own, which is added to the token here; a LayerScale is multiplied into the projection before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models import VisionTransformer
from operators.errors import InputError
from tasks.weights import state
from tasks.weights.state import Weights


class Normalisation(NamedTuple):
    """By which mean and deviation of each channel images are normalised."""

    mean: Sequence[float]
    std: Sequence[float]


def convert(
    weights: Weights,
    model: VisionTransformer,
    theirs: Normalisation | None = None,
    ours: Normalisation | None = None,
) -> dict[str, Tensor]:
    """The state of `model` from timm's weights; without the head where that has other classes.

    Args:
        weights: timm's.
        model: that is to hold them.
        theirs: normalisation of the images that they were trained on, if that is known.
        ours: normalisation of the images to come; a difference goes into the stem.

    Raises:
        InputError: weights that the model cannot hold, with the overrides under which it could; or that no model can.
    """
    _refuse_foreign_parts(weights)
    dim, channels, patch, _ = _four(weights, "patch_embed.proj.weight")
    hidden, depth = weights.shape("blocks.0.mlp.fc1.weight")[0], weights.blocks()
    pooling = "class" if "cls_token" in weights else "mean"
    asked = {"dim": dim, "depth": depth, "patch": patch, "hidden": hidden, "positions": "learned", "gelu": "exact"}
    needed = state.differences(model, {**asked, "norm": "layer", "pooling": pooling})
    state.refuse(weights.where, state.check_mixers(model, dim) | needed)
    if channels != model.stem.in_channels:
        raise InputError(
            f"{weights.where} is for images of {channels} channels, and these have {model.stem.in_channels}"
        )
    own = _stem(weights, model, theirs, ours)
    own |= _positions(weights, model, pooling)
    for number in range(depth):
        own |= _block(weights, f"blocks.{number}", dim, hidden)
    own |= {f"norm.{part}": weights.take(f"norm.{part}", dim) for part in ("weight", "bias")}
    if "head.weight" in weights and len(weights.shape("head.weight")) == 2:
        classes = weights.shape("head.weight")[0]
        head = {
            "head.weight": weights.take("head.weight", classes, dim),
            "head.bias": weights.take("head.bias", classes),
        }
        own |= head if classes == model.num_classes else {}
    weights.finish()
    return own


def _refuse_foreign_parts(weights: Weights) -> None:
    for name, reason in {
        "dist_token": "a distillation token",
        "reg_token": "register tokens",
        "norm_pre.weight": "a norm before its blocks",
        "fc_norm.weight": "a norm after pooling",
        "blocks.0.attn.q_norm.weight": "norms of q and k with biases",
        "blocks.0.mlp.fc1_g.weight": "gated feed-forward networks",
        "blocks.0.mlp.w12.weight": "gated feed-forward networks",
        "attn_pool.latent": "attention pooling",
    }.items():
        if name in weights:
            raise InputError(f"{weights.where} has {reason} ({name}), for which this trunk has no place")


def _four(weights: Weights, name: str) -> tuple[int, int, int, int]:
    shape = weights.shape(name)
    if len(shape) != 4 or shape[2] != shape[3]:
        raise InputError(f"{weights.where} has {name} of shape {tuple(shape)}, not of square patches")
    return shape[0], shape[1], shape[2], shape[3]


def _stem(
    weights: Weights, model: VisionTransformer, theirs: Normalisation | None, ours: Normalisation | None
) -> dict[str, Tensor]:
    shape = _four(weights, "patch_embed.proj.weight")
    weight, bias = weights.take("patch_embed.proj.weight", *shape), weights.take("patch_embed.proj.bias", shape[0])
    if theirs is not None and ours is not None and tuple(map(tuple, theirs)) != tuple(map(tuple, ours)):
        # x' = (x std + mean - mean') / std' of the images x that come in
        std, mean, scale, shift = (
            torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)
            for values in (theirs.std, theirs.mean, ours.std, ours.mean)
        )
        bias = bias + (weight * (shift - mean) / std).sum(dim=(1, 2, 3))
        weight = weight * scale / std
    return {"stem.weight": weight.flatten(1), "stem.bias": bias}


def _positions(weights: Weights, model: VisionTransformer, pooling: str) -> dict[str, Tensor]:
    shape = weights.shape("pos_embed")
    if len(shape) != 3:
        raise InputError(f"{weights.where} has pos_embed of shape {tuple(shape)}, not (1, tokens, channels)")
    positions = weights.take("pos_embed", *shape)[0]
    own: dict[str, Tensor] = {}
    if pooling == "class":
        token = weights.take("cls_token", 1, 1, shape[2])[0, 0]
        others = len(positions) - 1
        if others in (round(others**0.5) ** 2, model.grid[0] * model.grid[1]):  # the first is the class token's
            token, positions = token.double() + positions[0], positions[1:]
        own["class_token"] = token
    return {**own, "positions.table": state.table(weights, positions, model.grid)}


def _block(weights: Weights, block: str, dim: int, hidden: int) -> dict[str, Tensor]:
    own = state.attention(weights, block, f"{block}.mixer", dim) | state.ffn(
        weights, block, f"{block}.ffn", dim, hidden
    )
    for theirs, ours in (("norm1", "mixer_norm"), ("norm2", "ffn_norm")):
        own |= {f"{block}.{ours}.{part}": weights.take(f"{block}.{theirs}.{part}", dim) for part in ("weight", "bias")}
    scales = (("ls1.gamma", "gamma_1", "mixer.shell.out_proj"), ("ls2.gamma", "gamma_2", "ffn.down"))
    for new, old, layer in scales:
        for name in (f"{block}.{new}", f"{block}.{old}"):
            if name in weights:
                gamma = weights.take(name, dim).double()
                own[f"{block}.{layer}.weight"] = own[f"{block}.{layer}.weight"] * gamma[:, None]
                own[f"{block}.{layer}.bias"] = own[f"{block}.{layer}.bias"] * gamma
    return own
