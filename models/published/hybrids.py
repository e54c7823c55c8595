"""Published pyramids of two kinds of blocks, and one trunk with several mixers (ImageNet-1k, 224 px, 300 epochs)."""

from __future__ import annotations

from typing import Any

from models.published.entry import TOP1, Deviation, PublishedModel, by_stage, everywhere
from models.pyramid.spec import PyramidSpec
from models.spec import MixerSpec, StageMixers

_STM = "arXiv 2211.05781; OpenGVLab/STM-Evaluation at b62c471, classification/models/model_factory"
_WIDE = (1, 2, 4, 8)
_LINEAR_CONV = everywhere("conv", 4, shell={"name": "common", "gate": "none", "norm": "none", "bias": True})
_EPS = ("the ε of all norms is 1e-6; theirs is 1e-5 in blocks",)
_REDUCED = by_stage(
    *(
        MixerSpec("spatial_reduction", {"heads": heads, "reduction": reduction}, "published")
        for heads, reduction in zip((1, 2, 5, 8), (8, 4, 2, 1), strict=True)
    )
)


def _with_heads(name: str, heads: int) -> StageMixers:
    """A mixer with so many heads in the first stage, and in the others as many channels in a head."""
    return by_stage(*(MixerSpec(name, {"heads": heads * width}, "published") for width in _WIDE))


def _half_attention(heads: int, window: int, depth: int) -> tuple[MixerSpec, ...]:
    """The mixers of a stage of MambaVision: scans in the first half of its blocks, attention in the second."""
    scan = MixerSpec("mambavision", shell="published")
    attention = MixerSpec("window", {"heads": heads, "window": window, "shift": 0, "position_bias": False}, "published")
    return (scan,) * (depth - depth // 2) + (attention,) * (depth // 2)


def _halo(blocks: int, channels: int, vectors: float, padding: float) -> tuple[Deviation, ...]:
    """How halo attention differs from the STM evaluation's, in so many blocks of so many channels together.

    Of 10⁹ MACs, so many are of products with vectors, and so many of those with padding.
    """
    return (
        Deviation(channels, "values have a bias"),
        Deviation(-2 * 6 * 32 * blocks, "no vectors for offsets that no key of a query has", -vectors),
        Deviation(0, "keys and values beyond the border are not padded and masked, but left out", -padding),
    )


def _stm(title: str, spec: tuple[int, tuple[int, ...], float], mixers: StageMixers, **facts: Any) -> PublishedModel:
    """A model in the trunk of the STM evaluation, the same for all mixers but for width, depths and drop path.

    With spatial reduction it also has positions, other widths, and wider feed-forward networks in the first stages.
    """
    dim, depths, drop_path = spec
    pvt: dict[str, Any] = {"widths": (1, 2, 5, 8), "positions": "stages", "ffn_ratio": (8, 8, 4, 4)}
    switches = pvt if mixers == _REDUCED else {"widths": _WIDE}
    return PublishedModel(
        title=title,
        spec=PyramidSpec(
            dim=dim,
            depths=depths,
            down_bias=False,
            layer_scale=1e-6,
            stage_norms=True,
            head="conv_gelu",
            drop_path=drop_path,
            **switches,
        ),
        mixers=mixers,
        source=_STM,
        macs_counted=True,
        **facts,
    )


HYBRIDS: dict[str, PublishedModel] = {
    "spatial_mamba_t": PublishedModel(
        title="Spatial-Mamba-T",
        spec=PyramidSpec(
            dim=64, widths=_WIDE, depths=(2, 4, 8, 4), stem="mila", down="mila", cpe="both", eps=1e-5, drop_path=0.2
        ),
        mixers=everywhere("spatial_mamba", 4),
        source="arXiv 2410.15091; EdwardChasel/Spatial-Mamba at 71221eb, spatialmamba_tiny",
        parameters=26_748_862,
        macs=4.423,
        macs_counted=True,
        score=83.5,
        measure=f"{TOP1}, trained with MESA",
        compared="outputs within 9e-16, input gradients within 2.5e-15 (relative RMS, float64, 64 × 96 pixels; the ε "
        "of their mixers' norms set to 1e-6, a plain scan in place of their kernel, three convolutions of states as in "
        "their training)",
        notes=("the ε of the mixers' norms is 1e-6; theirs is 1e-5", "the authors print 4.5G"),
    ),
    "mambavision_t": PublishedModel(
        title="MambaVision-T",
        spec=PyramidSpec(
            dim=80,
            widths=_WIDE,
            depths=(1, 3, 8, 4),
            stem="fast",
            down_norm="none",
            down_bias=False,
            conv_stages=2,
            eps=1e-5,
            drop_path=0.2,
            head="batch_mean",
        ),
        mixers=by_stage(
            MixerSpec("identity", shell="published"),
            MixerSpec("identity", shell="published"),
            _half_attention(8, 14, 8),
            _half_attention(16, 7, 4),
        ),
        source="arXiv 2407.08083; NVlabs/MambaVision at 7860a50, mamba_vision_T",
        parameters=31_794_248,
        macs=4.570,
        macs_counted=True,
        score=82.3,
        compared="outputs within 9.4e-16, input gradients within 5.4e-15 (relative RMS, float64, 64 × 64 pixels and "
        "one window for a stage, as at 224 px; the biases of steps here twice theirs, a plain scan in place of their "
        "kernel)",
        notes=(
            "the authors print 4.4G",
            "scans go through the image, and attention is in windows of 14 and 7 tokens: theirs are both in such "
            "windows, which at 224 px are the image",
            "theirs adds the bias of a step twice",
        ),
    ),
    "u_convnext_micro": _stm(
        "U-ConvNeXt micro",
        (32, (3, 3, 8, 3), 0.0),
        _LINEAR_CONV,
        parameters=4_439_624,
        macs=0.6481,
        score=75.1,
        compared="outputs within 6e-16, input gradients within 2.4e-15 (relative RMS, float64, 64 × 64 pixels)",
    ),
    "u_convnext_tiny": _stm(
        "U-ConvNeXt tiny", (96, (2, 2, 9, 2), 0.1), _LINEAR_CONV, parameters=31_912_360, macs=4.997, score=82.2
    ),
    "u_swin_micro": _stm(
        "U-Swin micro",
        (32, (2, 2, 9, 2), 0.0),
        _with_heads("window", 1),
        parameters=4_381_042,
        macs=0.7005,
        score=74.4,
        compared="outputs within 3e-16, input gradients within 4e-15 (relative RMS, float64, 224 × 224 pixels)",
    ),
    "u_swin_tiny": _stm(
        "U-Swin tiny",
        (96, (2, 2, 6, 2), 0.2),
        _with_heads("window", 3),
        parameters=31_540_546,
        macs=4.883,
        score=82.3,
    ),
    "u_halonet_micro": _stm(
        "U-HaloNet micro",
        (32, (2, 2, 9, 2), 0.0),
        _with_heads("halo", 1),
        parameters=4_389_672,
        deviations=_halo(15, 1856, 0.0135, 0.0060),
        macs=0.8606,
        score=75.8,
        compared="outputs within 4e-16, input gradients within 4e-15 (relative RMS, float64, 224 × 224 pixels; the ε "
        "of our blocks set to 1e-5, the bias of values zero)",
        notes=_EPS,
    ),
    "u_halonet_tiny": _stm(
        "U-HaloNet tiny",
        (96, (2, 2, 6, 2), 0.2),
        _with_heads("halo", 3),
        parameters=31_523_176,
        deviations=_halo(12, 4416, 0.0352, 0.0181),
        macs=5.298,
        score=83.0,
        notes=_EPS,
    ),
    "u_pvt_micro": _stm(
        "U-PVT micro",
        (32, (2, 2, 3, 2), 0.0),
        _REDUCED,
        parameters=4_454_056,
        macs=0.6121,
        score=72.8,
        compared="outputs within 7e-16, input gradients within 4e-15 (relative RMS, float64, 64 × 64 pixels; the ε of "
        "our blocks set to 1e-5)",
        notes=_EPS,
    ),
    "u_pvt_tiny": _stm(
        "U-PVT tiny", (64, (3, 4, 9, 3), 0.1), _REDUCED, parameters=31_157_736, macs=4.708, score=82.1, notes=_EPS
    ),
    "u_internimage_micro": _stm(
        "U-InternImage micro",
        (32, (2, 2, 9, 2), 0.0),
        everywhere("dcn", 4),
        parameters=4_302_692,
        macs=0.6562,
        score=75.3,
        compared="outputs within 1.5e-15, input gradients within 4e-15 (relative RMS, float64, 64 × 64 pixels; the ε "
        "of our blocks set to 1e-5, the authors' plain sampling in place of their kernel)",
        notes=_EPS,
    ),
    "u_internimage_tiny": _stm(
        "U-InternImage tiny",
        (64, (4, 4, 18, 4), 0.1),
        everywhere("dcn", 4),
        parameters=29_933_272,
        macs=4.865,
        score=83.3,
        notes=_EPS,
    ),
}
"""These models by name."""
