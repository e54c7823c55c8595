"""Linear attentions and what stands in their place against their authors' code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import operators
from tests.authors.comparing import compare, fill
from tests.authors.source import Source
from tests.authors.weights import halves, joined, named, of, pairs, randomised, split

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("float64")]
GRIDS = ((5, 7), (6, 6))
WIDTH = 16
NOT_INSTALLED: dict[str, dict[str, Any]] = {
    "fvcore.nn": {},
    "timm.models.layers": {},
    "timm.models.registry": {},
    "timm.models.vision_transformer": {},
}


def test_linear_attention__elu() -> None:
    """With their ε, which is added to a sum and not to a mean, N times ours."""
    source = Source.of("linear_attention", "idiap/fast-transformers")
    package, folder = "fast_transformers", "fast_transformers.attention"
    module, layers = (
        source.load(f"{folder}.{name}", empty=(package, folder)) for name in ("linear_attention", "attention_layer")
    )
    masking = source.load(f"{package}.masking", empty=(package,))
    for height, width in GRIDS:
        tokens, heads = height * width, 2
        attention = module.LinearAttention(WIDTH // heads, eps=tokens * 1e-15)
        theirs = randomised(layers.AttentionLayer(attention, WIDTH, heads))
        ours = operators.create("linear_attention", WIDTH, shell="published", heads=heads)
        fill(
            ours,
            named(
                shell__in_proj=of(theirs.value_projection),
                shell__out_proj=of(theirs.out_projection),
                core__qk=joined(of(theirs.query_projection), of(theirs.key_projection)),
            ),
        )
        mask, lengths = masking.FullMask(tokens), masking.LengthMask(torch.full((2,), tokens))

        def layer(x: Tensor, theirs: nn.Module = theirs, mask: Any = mask, lengths: Any = lengths) -> Tensor:
            flat = x.flatten(1, 2)
            return theirs(flat, flat, flat, mask, lengths, lengths).view(x.shape)

        same = pairs(ours, {"shell.in_proj.weight": theirs.value_projection.weight})
        name = f"linear_attention, fast-transformers, {height} × {width}"
        compare(name, ours, layer, torch.randn(2, height, width, WIDTH), same=same)


def test_linear_attention__relu() -> None:
    """Without branches of other scales; with their ε, which is added to a sum and not to a mean, N times ours."""
    module = Source.of("linear_attention", "mit-han-lab/efficientvit").load(
        "efficientvit.models.nn.ops",
        empty=("efficientvit", "efficientvit.models", "efficientvit.models.nn"),
        stubs={"triton": {}, "triton.language": {}},
    )
    for height, width in (*GRIDS, (2, 2)):
        eps, heads = height * width * 1e-15, 2
        theirs = randomised(module.LiteMLA(WIDTH, WIDTH, norm=(None, None), use_bias=True, scales=(), eps=eps))
        ours = operators.create("linear_attention", WIDTH, shell="published", heads=heads, feature_map="relu")
        parts = split(of(theirs.qkv.conv), *[WIDTH // heads] * 3 * heads)
        fill(
            ours,
            named(
                shell__in_proj=joined(*parts[2::3]),
                shell__out_proj=of(theirs.proj.conv),
                core__qk=joined(*parts[::3], *parts[1::3]),
            ),
        )
        compare(
            f"linear_attention, efficientvit, {height} × {width}",
            ours,
            lambda x, theirs=theirs: theirs(x.movedim(-1, 1)).movedim(1, -1),
            torch.randn(2, height, width, WIDTH),
        )


def test_mlla() -> None:
    """The block without its convolutions and its MLP, for any grid."""
    module = Source.of("mlla").load(
        "models.mlla",
        root="",
        empty=("models",),
        stubs=NOT_INSTALLED,
        edits={
            "torch.float32": "torch.float64",
            "h = int(n ** 0.5)\n        w = int(n ** 0.5)": "h, w = self.input_resolution",
        },
    )
    heads = 2
    for grid in GRIDS:
        theirs = randomised(module.MLLABlock(WIDTH, grid, heads))
        theirs.norm1 = nn.Identity()
        for other in (theirs.cpe1, theirs.cpe2, theirs.mlp.fc2):
            for parameter in other.parameters():
                parameter.data.zero_()
        ours = operators.create("mlla", WIDTH, shell="published", heads=heads)
        q, k = split(of(theirs.attn.qk), WIDTH, WIDTH)
        fill(
            ours,
            named(
                shell__in_proj=joined(of(theirs.in_proj), of(theirs.act_proj)),
                shell__conv=of(theirs.dwc),
                shell__out_proj=of(theirs.out_proj),
                core__qk=joined(halves(q, heads), halves(k, heads)),
                core__local=of(theirs.attn.lepe),
            ),
        )
        same = pairs(ours, {"core.local.weight": theirs.attn.lepe.weight, "shell.conv.weight": theirs.dwc.weight})
        compare(
            f"mlla {grid}",
            lambda x, ours=ours: x + ours(x),
            lambda x, theirs=theirs: theirs(x.flatten(1, 2)).view(x.shape),
            torch.randn(2, *grid, WIDTH),
            same=same,
        )


def test_rala() -> None:
    module = Source.of("rala").load("RALA", root="classfication", stubs=NOT_INSTALLED)
    heads = 2
    theirs = randomised(module.GateLinearAttentionNoSilu(WIDTH, heads))
    rope = module.RoPE(WIDTH, heads)
    ours = operators.create("rala", WIDTH, shell="published", heads=heads)
    q, k, v, o = split(of(theirs.qkvo), *[WIDTH] * 4)
    fill(
        ours,
        named(
            shell__in_proj=joined(v, o),
            shell__out_proj=of(theirs.proj),
            core__qk=joined(halves(q, heads), halves(k, heads)),
            core__local=of(theirs.lepe),
        ),
    )
    for grid in GRIDS:
        compare(
            f"rala {grid}",
            ours,
            lambda x, grid=grid: theirs(x.movedim(-1, 1), *rope(grid)).movedim(1, -1),
            torch.randn(2, *grid, WIDTH),
            same=pairs(ours, {"core.local.weight": theirs.lepe.weight}),
        )


def test_polaformer() -> None:
    """With its table of positions."""
    module = Source.of("polaformer").load("models.pola_pvt", empty=("models",), stubs=NOT_INSTALLED)
    heads = 2
    for height, width in GRIDS:
        theirs = randomised(module.PolaLinearAttention(WIDTH, height * width, num_heads=heads, qkv_bias=True))
        ours = operators.create(
            "polaformer", WIDTH, grid=(height, width), shell="published", heads=heads, positions=True
        )
        (q, g), (k, v) = (split(of(layer), WIDTH, WIDTH) for layer in (theirs.qg, theirs.kv))
        fill(
            ours,
            {
                "core.scale": theirs.scale.flatten(),
                "core.power": theirs.power[0, :, 0],
                "core.positions": theirs.positional_encoding.view(height, width, WIDTH),
            }
            | named(
                shell__in_proj=joined(v, g),
                shell__out_proj=of(theirs.proj),
                core__qk=joined(q, k),
                core__local=of(theirs.dwc),
            ),
        )
        compare(
            f"polaformer {height} × {width}",
            ours,
            lambda x, theirs=theirs: theirs(x.flatten(1, 2), *x.shape[1:3]).view(x.shape),
            torch.randn(2, height, width, WIDTH),
            same=pairs(ours, {"core.local.weight": theirs.dwc.weight}),
        )


def test_focal() -> None:
    module = Source.of("focal").load(
        "focalnet", root="classification", stubs=NOT_INSTALLED | {"torchvision": {}, "timm.data.constants": {}}
    )
    levels = 3
    theirs = randomised(module.FocalModulation(WIDTH, focal_window=3, focal_level=levels))
    ours = operators.create("focal", WIDTH, shell="published", levels=levels, kernel=3)
    q, context, gates = split(of(theirs.f), WIDTH, WIDTH, levels + 1)
    fill(
        ours,
        named(
            shell__in_proj=context,
            shell__out_proj=of(theirs.proj),
            core__maps=joined(q, gates),
            core__modulator=of(theirs.h),
            **{f"core__convs__{level}": of(layer[0]) for level, layer in enumerate(theirs.focal_layers)},
        ),
    )
    same = pairs(
        ours,
        {
            "shell.out_proj.weight": theirs.proj.weight,
            "core.convs.0.weight": theirs.focal_layers[0][0].weight,
        },
    )
    for grid in (*GRIDS, (1, 4)):
        compare(f"focal {grid}", ours, theirs, torch.randn(2, *grid, WIDTH), same=same)


@pytest.mark.parametrize("form", ["full", "decomposed"])
def test_retention_2d(form: str) -> None:
    module = Source.of("retention_2d").load(
        "RMT",
        root="classfication_release",
        stubs=NOT_INSTALLED,
        edits={"torch.arange(num_heads, dtype=torch.float)": "torch.arange(num_heads)"},
    )
    heads = 2
    kind = module.VisionRetentionAll if form == "full" else module.VisionRetentionChunk
    theirs = randomised(kind(WIDTH, heads))
    positions = module.RetNetRelPos2d(WIDTH, heads, 2, 4)
    ours = operators.create("retention_2d", WIDTH, shell="published", heads=heads, form=form, slowest=2, spread=4)
    fill(
        ours,
        named(
            shell__in_proj=of(theirs.v_proj),
            shell__out_proj=of(theirs.out_proj),
            core__qk=joined(*(halves(of(layer), heads) for layer in (theirs.q_proj, theirs.k_proj))),
            core__local=of(theirs.lepe.conv),
        ),
    )
    same = pairs(ours, {"core.local.weight": theirs.lepe.conv.weight, "shell.in_proj.weight": theirs.v_proj.weight})
    for grid in GRIDS:
        compare(
            f"retention_2d, {form}, {grid}",
            ours,
            lambda x, grid=grid: theirs(x, positions(grid, chunkwise_recurrent=form == "decomposed")),
            torch.randn(2, *grid, WIDTH),
            same=same,
        )
