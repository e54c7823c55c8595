"""Attention of blocks and their halos, and to coarser grids, against the code of the STM evaluation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.authors.comparing import compare, fill
from tests.authors.source import Source
from tests.authors.stand_ins import TIMM, built, images, of
from tests.authors.weights import randomised

pytestmark = pytest.mark.slow
TIMM_SOURCE = Source("huggingface/pytorch-image-models", "aa4b585")
"""What the evaluation takes one function from."""


@pytest.mark.parametrize(("grid", "block", "halo"), [((6, 9), 3, 2), ((8, 4), 4, 1), ((14, 7), 7, 3)])
def test_halo(grid: tuple[int, int], block: int, halo: int) -> None:
    """On grids that blocks divide, without a bias of values, which is one with that of what follows."""
    logits = TIMM_SOURCE.load("timm.layers.halo_attn", empty=("timm", "timm.layers"))
    stubs: dict[str, dict[str, Any]] = TIMM | {"timm.models.layers.halo_attn": {"rel_logits_1d": logits.rel_logits_1d}}
    module = Source.of("halo").load("models.blocks.halonet", root="classification", empty=("models", "models.blocks"),
                                    stubs=stubs)  # fmt: skip
    dim, heads = 16, 2
    theirs = randomised(
        module.HaloAttn(dim, num_heads=heads, block_size=block, halo_size=halo, pos_embed_type="query_related")
    )
    ours = built("halo", dim, shell="published", heads=heads, block=block, halo=halo)
    keys, values = theirs.kv.weight[:, :, 0, 0].unflatten(0, (heads, 2, -1)).unbind(1)
    fill(
        ours,
        {
            "core.qk.weight": torch.cat([theirs.q.weight, keys.flatten(0, 1)]),
            "core.rows": theirs.pos_embed.height_rel[2 * halo :],
            "core.columns": theirs.pos_embed.width_rel[2 * halo :],
            "shell.in_proj.weight": values.flatten(0, 1),
            "shell.in_proj.bias": torch.zeros(dim),
            **of("shell.out_proj", theirs.proj),
        },
    )
    same = [(ours.shell.out_proj.weight, theirs.proj.weight)]
    compare("halo", ours, theirs, images(*grid, dim=dim), same=same)


@pytest.mark.parametrize(("grid", "reduction"), [((5, 7), 1), ((6, 8), 2), ((4, 2), 2)])
def test_spatial_reduction(grid: tuple[int, int], reduction: int) -> None:
    """On grids that r divides: their convolution leaves out rows and columns beyond."""
    module = Source.of("spatial_reduction").load(
        "models.blocks.pvt", root="classification", empty=("models", "models.blocks"), stubs=TIMM
    )
    dim, heads = 16, 2
    theirs = randomised(module.Attention(dim, num_heads=heads, qkv_bias=True, sr_ratio=reduction))
    ours = built("spatial_reduction", dim, shell="published", heads=heads, reduction=reduction)
    coarser = {} if reduction == 1 else {**of("core.reduce", theirs.sr), **of("core.norm", theirs.norm)}
    layers = {"shell.in_proj": theirs.q, "core.kv": theirs.kv, "shell.out_proj": theirs.proj}
    fill(
        ours, {**coarser, **{name: each for place, layer in layers.items() for name, each in of(place, layer).items()}}
    )
    same = [(ours.core.kv.weight, theirs.kv.weight), (ours.shell.in_proj.weight, theirs.q.weight)]
    compare(
        "spatial_reduction",
        ours,
        lambda x: theirs(x.flatten(1, 2), *grid).view(x.shape),
        images(*grid, dim=dim),
        same=same,
    )
