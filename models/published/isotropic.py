"""Published trunks of one width (ImageNet-1k, 224 px, supervised, 300 epochs unless noted)."""

from __future__ import annotations

from typing import Any

from models.published.entry import TOP1, Deviation, PublishedModel, everywhere
from models.pyramid.spec import PyramidSpec
from models.spec import ViTSpec

_DEIT = "arXiv 2012.12877; facebookresearch/deit README_deit.md"
_VIM = "arXiv 2401.09417; hustvl/Vim at dd0358a, README.md"
_VITTT = "arXiv 2512.01643; LeapLabTHU/ViTTT at e347758, vittt/README.md"
_LION = "arXiv 2502.16249; LIONS-EPFL/LION at 32a0136, README.md"
_GFNET = "arXiv 2107.00645; raoyongming/GFNet at 2de48b6, README.md"
_VIL = "arXiv 2406.04303; NX-AI/vision-lstm at 381ba95, vision_lstm2.py, hubconf.py and README.md"
_VRWKV = "arXiv 2403.02308; OpenGVLab/Vision-RWKV at 0e0e38a, classification/configs/vrwkv and README.md"
_TIMM = "huggingface/pytorch-image-models at aa4b585, mlp_mixer.py and results-imagenet.csv"
_RESMLP = f"arXiv 2105.03404; facebookresearch/deit at 7e160fe, resmlp_models.py; score: {_TIMM}"
_HOW = "relative RMS, float64, 64 × 96 pixels"
_FORMULA = f"{_HOW}; the formula in place of the kernel"
_MEAN = "no class token and no position of it: the head reads the mean"


def _one_width(dim: int, depth: int, **switches: Any) -> PyramidSpec:
    """A trunk of one width and patches of 16, with the switches of pyramids."""
    return PyramidSpec(dim=dim, widths=(1,), depths=(depth,), patch=16, stem="patch", stem_norm="none", **switches)


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
        spec=_one_width(dim, 12, cpe="mixer", drop_path=drop_path),
        mixers=everywhere("ttt", shell=shell, heads=heads),
        source=_VITTT,
        parameters=parameters,
        macs=macs,
        macs_counted=True,
        score=score,
    )


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
        spec=_one_width(dim, depth, positions="learned", residual="one"),
        mixers=everywhere("gfnet"),
        source=_GFNET,
        parameters=parameters,
        macs=macs,
        score=score,
        notes=("the drop path of the authors' training is not recorded here",),
    )


def _vil(
    letters: str,
    dim: int,
    parameters: int,
    macs: float,
    score: float,
    *,
    chunks: float,
    drop_path: float = 0.0,
    compared: str = "",
) -> PublishedModel:
    return PublishedModel(
        title=f"ViL-{letters} (second version)",
        spec=_one_width(
            dim, 24, positions="learned", hidden=0, eps=1e-5, drop_path=drop_path, drop_path_grows=False, head="ends"
        ),
        mixers=everywhere("vil"),
        source=_VIL,
        parameters=parameters,
        deviations=(Deviation(0, "scans in chunks, where the authors' code multiplies all pairs of tokens", chunks),),
        macs=macs,
        macs_counted=True,
        score=score,
        compared=compared,
        notes=("the ε of the norm in front of the head is that of the blocks, 1e-5; theirs is 1e-6",),
    )


def _vrwkv(
    letters: str,
    dim: int,
    parameters: int,
    macs: float,
    score: float,
    *,
    sums: float,
    drop_path: float = 0.0,
    block: str = "pre",
    layer_scale: float = 0.0,
    compared: str = "",
) -> PublishedModel:
    return PublishedModel(
        title=f"VRWKV-{letters}",
        spec=_one_width(
            dim, 12, positions="learned", embedding_norm=True, block=block, ffn="channel_mix", eps=1e-5,
            layer_scale=layer_scale, drop_path=drop_path,
        ),
        mixers=everywhere("vision_rwkv"),
        source=_VRWKV,
        parameters=parameters,
        deviations=(Deviation(0, "sums over tokens are matrix products; the authors' kernel is not counted", sums),),
        macs=macs,
        macs_counted=True,
        score=score,
        compared=compared,
        notes=("decays and shares of neighbours start in all blocks as in the middle one of theirs",),
    )  # fmt: skip


def _matrices(
    title: str, spec: PyramidSpec, mixer: str, source: str, parameters: int, macs: float, **more: Any
) -> PublishedModel:
    """A model whose mixers are matrices over tokens."""
    return PublishedModel(
        title=title,
        spec=spec,
        mixers=everywhere(mixer),
        source=source,
        parameters=parameters,
        macs=macs,
        macs_counted=True,
        notes=("the drop path of the authors' training is not recorded here",),
        **more,
    )


def _resmlp(
    depth: int, layer_scale: float, parameters: int, macs: float, score: float, compared: str
) -> PublishedModel:
    spec = _one_width(384, depth, norm="affine", layer_scale=layer_scale)
    return _matrices(f"ResMLP-S{depth}", spec, "resmlp", _RESMLP, parameters, macs, score=score, compared=compared)


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
    "vil_t": _vil(
        "T",
        192,
        6_391_528,
        1.86,
        78.3,
        chunks=-0.267,
        compared=f"outputs within 1.1e-15, input gradients within 2.6e-15 ({_HOW}; the ε of the norm in front of the "
        "head set to 1e-6)",
    ),
    "vil_s": _vil("S", 384, 23_398_696, 5.80, 81.5, chunks=-0.015, drop_path=0.05),
    "vil_b": _vil("B", 768, 89_263_528, 19.92, 82.4, chunks=2.049, drop_path=0.2),
    "vrwkv_t": _vrwkv(
        "T",
        192,
        6_155_176,
        1.156,
        75.1,
        sums=0.031,
        compared=f"outputs within 4e-16, input gradients within 1.7e-15 ({_FORMULA})",
    ),
    "vrwkv_s": _vrwkv(
        "S",
        384,
        23_820_136,
        4.567,
        80.1,
        sums=0.061,
        drop_path=0.3,
        block="post",
        layer_scale=1.0,
        compared=f"outputs within 5e-16, input gradients within 3.3e-15 ({_FORMULA})",
    ),
    "vrwkv_b": _vrwkv("B", 768, 93_645_544, 18.15, 82.0, sums=0.123, drop_path=0.5, block="post", layer_scale=1e-5),
    "gmlp_s": _matrices(
        "gMLP-S/16",
        _one_width(256, 30, hidden=0),
        "gmlp",
        f"arXiv 2105.08050 (without code); {_TIMM}",
        19_422_656,
        4.39,
        score=79.7,
        compared=f"outputs within 5e-16, input gradients within 4e-15 of timm's ({_HOW})",
    ),
    "mixer_s": _matrices(
        "Mixer-S/16",
        _one_width(512, 8),
        "mlp_mixer",
        f"arXiv 2105.01601; {_TIMM}",
        18_528_264,
        3.78,
        compared=f"outputs within 5e-16, input gradients within 2.2e-15 of timm's ({_HOW})",
    ),
    "mixer_b": _matrices(
        "Mixer-B/16",
        _one_width(768, 12),
        "mlp_mixer",
        f"arXiv 2105.01601; {_TIMM}",
        59_880_472,
        12.60,
        score=76.6,
        measure=f"{TOP1}, trained on ImageNet-21k first",
    ),
    "resmlp_s12": _resmlp(
        12, 0.1, 15_350_872, 3.01, 76.7, f"outputs within 4e-16, input gradients within 8e-16 ({_HOW})"
    ),
    "resmlp_s24": _resmlp(
        24, 1e-5, 30_020_680, 5.96, 79.4, f"outputs within 4e-16, input gradients within 1.1e-15 ({_HOW})"
    ),
}
"""Published trunks of one width by name."""
