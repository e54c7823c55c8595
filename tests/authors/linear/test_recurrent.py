"""Vision-LSTM and Vision-RWKV against their authors' code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from operators.mixers.linear.vision_rwkv import wkv_reference
from tests.authors.comparing import compare, fill
from tests.authors.source import Source
from tests.authors.stand_ins import built, empty, images, of
from tests.authors.weights import randomised

pytestmark = pytest.mark.slow
DIM = 16


@pytest.mark.parametrize("grid", [(5, 7), (9, 10)])
@pytest.mark.parametrize("order", ["row", "row_r"])
def test_vil(grid: tuple[int, int], order: str) -> None:
    """A layer against the rows convolves the turned image."""
    module: Any = Source.of("vil").load("vision_lstm.vision_lstm2", empty=["vision_lstm"])
    turned = order == "row_r"
    start = f"ROWWISE_FROM_{'BOT_RIGHT' if turned else 'TOP_LEFT'}"
    theirs = randomised(
        module.ViLLayer(DIM, module.SequenceTraversal[start], conv_kernel_size=3, seqlens=grid), scale=0.3
    )
    ours = built("vil", DIM, shell="published", order=order)
    cell, conv = theirs.mlstm_cell, theirs.conv
    queries, keys, values = theirs.q_proj, theirs.k_proj, theirs.v_proj
    weights = {
        **of("shell.in_proj", theirs.proj_up),
        **of("shell.out_proj", theirs.proj_down),
        "core.query_key.weight": torch.stack([queries.weight, keys.weight]),
        "core.query_key.bias": torch.stack([queries.bias, keys.bias]),
        "core.value.weight": values.weight[None],
        "core.value.bias": values.bias[None],
        "core.gates.weight": torch.cat([cell.igate.weight, cell.fgate.weight]),
        "core.gates.bias": torch.cat([cell.igate.bias, cell.fgate.bias]),
        "core.conv.weight": conv.weight.flip(2, 3) if turned else conv.weight,
        "core.conv.bias": conv.bias,
        "core.norm.weight": 1 + cell.outnorm.weight,
        "core.norm.bias": cell.outnorm.bias,
        "core.skip": theirs.learnable_skip,
    }
    fill(ours, weights)
    same = [
        (ours.core.skip, theirs.learnable_skip),
        (ours.core.norm.weight, cell.outnorm.weight),
        (ours.core.conv.bias, conv.bias),
        (ours.shell.in_proj.weight, theirs.proj_up.weight),
    ]
    compare("vil", ours, lambda x: theirs(x.flatten(1, 2)).view(x.shape), images(*grid), same=same)


def weighted_means(decay: Tensor, own: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """In the place of a CUDA kernel."""
    return wkv_reference(k, v, decay, own)


@pytest.mark.parametrize("grid", [(5, 7), (1, 3), (6, 8)])
def test_vision_rwkv(grid: tuple[int, int]) -> None:
    stubs = {
        "mmcv.runner.base_module": {"BaseModule": nn.Module, "ModuleList": nn.ModuleList},
        **empty("mmcv.cnn.bricks.transformer", "mmcls.models.builder", "mmcls.models.utils"),
        **empty("mmcls.models.backbones.base_backbone", "mmcls_custom.models.utils"),
    }
    module: Any = Source.of("vision_rwkv").load(
        "vrwkv",
        root="classification/mmcls_custom/models/backbones",
        stubs=stubs,
        edits={"from torch.utils.cpp_extension import load": "load = lambda **_: None"},
    )
    module.RUN_CUDA = weighted_means
    theirs = randomised(module.VRWKV_SpatialMix(DIM, n_layer=12, layer_id=5))
    ours = built("vision_rwkv", DIM, shell="published")
    weights = {
        **of("core.key", theirs.key),
        **of("core.value", theirs.value),
        **of("core.receptance", theirs.receptance),
        **of("core.output", theirs.output),
        "core.decay": theirs.spatial_decay,
        "core.own": theirs.spatial_first,
        "core.mix_key": theirs.spatial_mix_k[0, 0],
        "core.mix_value": theirs.spatial_mix_v[0, 0],
        "core.mix_gate": theirs.spatial_mix_r[0, 0],
    }
    fill(ours, weights)
    same = [
        (ours.core.decay, theirs.spatial_decay),
        (ours.core.own, theirs.spatial_first),
        (ours.core.key.weight, theirs.key.weight),
        (ours.core.receptance.weight, theirs.receptance.weight),
    ]
    compare("vision_rwkv", ours, lambda x: theirs(x.flatten(1, 2), grid).view(x.shape), images(*grid), same=same)
