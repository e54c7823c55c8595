"""Published pyramids of the MetaFormer and Swin families (ImageNet-1k, 224 px, supervised, 300 epochs)."""

from __future__ import annotations

from typing import Any

from models.published.entry import PublishedModel, by_stage, everywhere
from models.pyramid.spec import PyramidSpec
from models.spec import MixerSpec, StageMixers

_METAFORMER = "arXiv 2210.13452; sail-sg/metaformer at 64c534a, metaformer_baselines.py"
_CROPPED = "images whose sides 4 does not divide are padded; the authors' first convolution crops them"
_SWIN_SHAPE: dict[str, Any] = {
    "dim": 96,
    "widths": (1, 2, 4, 8),
    "stem": "patch",
    "down": "merge",
    "eps": 1e-5,
    "drop_path": 0.2,
}
"""What Swin and MSVMamba share."""


def _metaformer(
    letters: str, mixers: StageMixers, *, drop_path: float, parameters: int, macs: float, score: float, compared: str
) -> PublishedModel:
    return PublishedModel(
        title=f"{letters}-S18",
        spec=PyramidSpec(
            dim=64,
            widths=(1, 2, 5, 8),
            depths=(3, 3, 9, 3),
            stem="conv7",
            stem_norm="layer_no_bias",
            down_norm="pre",
            ffn="star",
            norm="layer_no_bias",
            residual_scales=2,
            drop_path=drop_path,
            head="mlp_squared",
        ),
        mixers=mixers,
        source=_METAFORMER,
        parameters=parameters,
        macs=macs,
        macs_counted=True,
        score=score,
        compared=f"{compared} (relative RMS, float64, 60 × 92 pixels)",
        notes=(_CROPPED,),
    )


def _windows(heads: int) -> MixerSpec:
    return MixerSpec("window", {"heads": heads}, "published")


def _attention(heads: int) -> MixerSpec:
    return MixerSpec("attention", {"heads": heads, "bias": False}, {"name": "published", "bias": False})


_SEPCONV = MixerSpec("sepconv", {}, "published")

METAFORMERS: dict[str, PublishedModel] = {
    "convformer_s18": _metaformer(
        "ConvFormer",
        everywhere("sepconv", 4),
        drop_path=0.2,
        parameters=26_774_448,
        macs=3.94,
        score=83.0,
        compared="outputs within 1e-15, input gradients within 6.3e-15",
    ),
    "caformer_s18": _metaformer(
        "CAFormer",
        by_stage(_SEPCONV, _SEPCONV, _attention(10), _attention(16)),
        drop_path=0.15,
        parameters=26_341_656,
        macs=4.11,
        score=83.6,
        compared="outputs within 1.1e-15, input gradients within 5.5e-15",
    ),
    "mambaout_t": PublishedModel(
        title="MambaOut-T",
        spec=PyramidSpec(dim=96, widths=(1, 2, 4, 6), depths=(3, 3, 9, 3), hidden=0, drop_path=0.2, head="mlp"),
        mixers=everywhere("gated_cnn", 4),
        source="arXiv 2405.07992; yuweihao/MambaOut at 9f2f234, mambaout_tiny",
        parameters=26_545_096,
        macs=4.47,
        macs_counted=True,
        score=82.7,
        compared="outputs within 1e-15, input gradients within 6.6e-15 (relative RMS, float64, 61 × 93 pixels)",
    ),
    "swin_t": PublishedModel(
        title="Swin-T",
        spec=PyramidSpec(depths=(2, 2, 6, 2), **_SWIN_SHAPE),
        mixers=by_stage(*map(_windows, (3, 6, 12, 24))),
        source="arXiv 2103.14030; microsoft/Swin-Transformer at f82860b, swin_tiny_patch4_window7_224",
        parameters=28_288_354,
        macs=4.49,
        macs_counted=True,
        score=81.2,
        compared="outputs within 4.3e-16, input gradients within 4.8e-15 (relative RMS, float64, 224 × 224 pixels); "
        "with windows of 2 × 2 tokens within 5.4e-16 and 5.1e-15 (128 × 192 pixels)",
        notes=(
            "images whose grids windows do not divide are padded; the authors' model takes the one size it is made for",
            "windows are not shifted along an axis that they cover; theirs along none, once they cover one",
        ),
    ),
    "msvmamba_t": PublishedModel(
        title="MSVMamba-T",
        spec=PyramidSpec(depths=(1, 2, 9, 2), ffn="conv_before", ffn_ratio=2.0, **_SWIN_SHAPE),
        mixers=everywhere("msvmamba", 4),
        source="arXiv 2405.14174; YuHengsss/MSVMamba at c394019, vssm_tiny_224_ms.yaml",
        parameters=33_046_312,
        macs=4.6,
        score=82.8,
        compared="outputs within 9e-16, input gradients within 4.5e-15 (relative RMS, float64, 60 × 92 "
        "pixels; the ε of the mixers' norms set to 1e-5, the scan a loop in place of their kernels)",
        notes=(
            "the printed FLOPs count norms, interpolation and means too, and nine operations of a scan as nine MACs; "
            "without these and without scans both models have 4.51G MACs",
        ),
    ),
}
"""Published pyramids of these families by name."""
