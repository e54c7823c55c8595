"""Published trunks of one width (ImageNet-1k, 224 px, supervised, 300 epochs unless noted)."""

from __future__ import annotations

from typing import Any

from models.published.entry import Deviation, PublishedModel, everywhere
from models.pyramid.spec import PyramidSpec
from models.spec import ViTSpec

_DEIT = "arXiv 2012.12877; facebookresearch/deit README_deit.md"
_VIM = "arXiv 2401.09417; hustvl/Vim at dd0358a, README.md"
_VITTT = "arXiv 2512.01643; LeapLabTHU/ViTTT at e347758, vittt/README.md"
_LION = "arXiv 2502.16249; LIONS-EPFL/LION at 32a0136, README.md"
_GFNET = "arXiv 2107.00645; raoyongming/GFNet at 2de48b6, README.md"
_MEAN = "no class token and no position of it: the head reads the mean"


def _deit(letters: str, dim: int, heads: int, parameters: int, macs: float, score: float) -> PublishedModel:
    return PublishedModel(
        title=f"DeiT-{letters}",
        spec=ViTSpec(dim=dim, depth=12, patch=16, drop_path=0.1, pooling="class"),
        mixers=everywhere("attention", heads=heads),
        source=_DEIT,
        parameters=parameters,
        deviations=(Deviation(-dim, "the class token has no position, which would only add to it"),),
        macs=macs,
        score=score,
    )


def _vim(letters: str, dim: int, parameters: int, macs: float | None, score: float) -> PublishedModel:
    return PublishedModel(
        title=f"Vim-{letters}",
        spec=ViTSpec(dim=dim, depth=24, patch=16, hidden=0, norm="rms"),
        mixers=everywhere("mamba"),
        source=_VIM,
        parameters=parameters,
        deviations=(Deviation(-2 * dim, "no class token in the middle of the sequence: the head reads the mean"),),
        macs=macs,
        score=score,
        notes=("the drop path of the authors' training is not recorded here",),
    )


def _vittt(
    letters: str, dim: int, heads: int, parameters: int, macs: float, score: float, drop_path: float = 0.0
) -> PublishedModel:
    shell: dict[str, Any] = {"name": "published", "expand": (heads + 1) / heads}
    return PublishedModel(
        title=f"ViT³-{letters}",
        spec=PyramidSpec(
            dim=dim, widths=(1,), depths=(12,), patch=16, stem="patch", stem_norm="none", cpe="mixer",
            drop_path=drop_path,
        ),
        mixers=everywhere("ttt", shell=shell, heads=heads),
        source=_VITTT,
        parameters=parameters,
        macs=macs,
        macs_counted=True,
        score=score,
    )  # fmt: skip


def _lion(variant: str, parameters: int, score: float, *, curves: bool = False) -> PublishedModel:
    orders = ["snake_row", "snake_col"] if curves else ["row"]
    names = {"lit": "LION-lit", "d": "LION-D", "s": "LION-S"}
    return PublishedModel(
        title=f"{names[variant]} ViT-B{', two curves' if curves else ''}",
        spec=ViTSpec(dim=768, depth=12, patch=16),
        mixers=everywhere("lion", variant=variant, orders=orders, heads=12),
        source=_LION,
        parameters=parameters,
        deviations=(Deviation(-2 * 768, _MEAN),),
        score=score,
        notes=("the drop path of the authors' training is not recorded here",),
    )


def _gfnet(letters: str, dim: int, depth: int, parameters: int, macs: float, score: float) -> PublishedModel:
    return PublishedModel(
        title=f"GFNet-{letters}",
        spec=PyramidSpec(
            dim=dim, widths=(1,), depths=(depth,), patch=16, stem="patch", stem_norm="none", positions="learned",
            residual="one",
        ),
        mixers=everywhere("gfnet"),
        source=_GFNET,
        parameters=parameters,
        macs=macs,
        score=score,
        notes=("the drop path of the authors' training is not recorded here",),
    )  # fmt: skip


ISOTROPIC: dict[str, PublishedModel] = {
    "deit_ti": _deit("Ti", 192, 3, 5_717_416, 1.3, 72.2),
    "deit_s": _deit("S", 384, 6, 22_050_664, 4.6, 79.9),
    "deit_b": _deit("B", 768, 12, 86_567_656, 17.6, 81.8),
    "vim_ti": _vim("Ti", 192, 7_148_008, 1.5, 76.1),
    "vim_s": _vim("S", 384, 25_796_584, 5.1, 80.5),
    "vim_b": _vim("B", 768, 97_598_440, None, 81.9),
    "vit3_t": _vittt("T", 192, 6, 6_149_416, 1.22, 76.5),
    "vit3_s": _vittt("S", 384, 6, 23_799_400, 4.81, 81.6),
    "vit3_b": _vittt("B", 768, 12, 90_055_912, 17.94, 82.6, drop_path=0.4),
    "lion_lit_b": _lion("lit", 86_567_656, 74.7),
    "lion_d_b": _lion("d", 86_567_800, 77.8),
    "lion_s_b": _lion("s", 86_678_392, 76.3),
    "lion_d_b_curves": _lion("d", 86_567_944, 80.2, curves=True),
    "lion_s_b_curves": _lion("s", 86_789_128, 79.9, curves=True),
    "gfnet_ti": _gfnet("Ti", 256, 12, 7_511_784, 1.3, 74.6),
    "gfnet_xs": _gfnet("XS", 384, 12, 15_985_768, 2.8, 78.6),
    "gfnet_s": _gfnet("S", 384, 19, 24_869_608, 4.5, 80.0),
    "gfnet_b": _gfnet("B", 512, 19, 43_120_616, 7.9, 80.7),
}
"""Published trunks of one width by name."""
