"""Published pyramids (ImageNet-1k, 224 px, supervised, 300 epochs unless noted)."""

from __future__ import annotations

from typing import Any

from models.published.entry import TOP1, Deviation, PublishedModel, by_stage, everywhere
from models.pyramid.spec import PyramidSpec
from models.spec import MixerSpec

_ROUNDED = "images whose sides the stride does not divide are padded; the authors' first convolution crops them"
_SCAN = "the printed FLOPs count nine operations of a scan as nine MACs, and not as four and a half"


def _four(depths: tuple[int, int, int, int], **switches: Any) -> PyramidSpec:
    """The shape that VMamba, vHeat and GSPN share: four stages, 96 channels in the first."""
    return PyramidSpec(dim=96, widths=(1, 2, 4, 8), depths=depths, **{"eps": 1e-5, "drop_path": 0.2, **switches})


def _mila() -> PyramidSpec:
    """The trunk of MILA, which VSSD and Spatial-Mamba have as well."""
    return PyramidSpec(
        dim=64, widths=(1, 2, 4, 8), depths=(2, 4, 8, 4), stem="mila", down="mila", cpe="both", eps=1e-5, drop_path=0.2
    )


def _with_heads(name: str, *heads: int) -> tuple[MixerSpec, ...]:
    return tuple(MixerSpec(name, {"heads": each}, "published") for each in heads)


def _gated_attention(heads: int) -> MixerSpec:
    return MixerSpec("attention", {"heads": heads, "rope": True}, {"name": "published", "gate": "linear"})


PYRAMIDS: dict[str, PublishedModel] = {
    "poolformer_s12": PublishedModel(
        title="PoolFormer-S12",
        spec=PyramidSpec(
            dim=64,
            widths=(1, 2, 5, 8),
            depths=(2, 2, 6, 2),
            stem="conv7",
            stem_norm="none",
            down_norm="none",
            norm="group",
            eps=1e-5,
            layer_scale=1e-5,
            drop_path=0.1,
        ),
        mixers=everywhere("pool", 4),
        source="arXiv 2111.11418; sail-sg/poolformer at a075575, models/poolformer.py",
        parameters=11_915_176,
        macs=1.81,
        macs_counted=True,
        score=77.2,
        compared="outputs within 6e-16, input gradients within 1.2e-15 (relative RMS, float64, 64 × 96 pixels)",
        notes=(_ROUNDED,),
    ),
    "vheat_t": PublishedModel(
        title="vHeat-T",
        spec=_four((2, 2, 6, 2), down_bias=False, drop_path=0.1),
        mixers=everywhere("vheat", 4),
        source="arXiv 2405.16555; MzeroMiko/vHeat at bcc4da7, vHeat_tiny_224",
        parameters=30_853_480,
        deviations=(
            Deviation(865_536, "every mixer has an embedding of frequencies of its own; theirs share one in a stage"),
            Deviation(0, "the map of that embedding is the same for all images, and is not counted for each", -0.347),
        ),
        macs=4.91,
        macs_counted=True,
        score=82.2,
        notes=("the ε of the stem's norms is that of the blocks, 1e-5; theirs is 1e-6",),
    ),
    "vmamba_t_v0": PublishedModel(
        title="VMamba-T (vanilla)",
        spec=_four((2, 2, 9, 2), stem="patch", down="merge", hidden=0),
        mixers=everywhere("ss2d", 4),
        source="arXiv 2401.10166; MzeroMiko/VMamba at 2ed52ea, vmambav0_tiny",
        parameters=22_893_448,
        macs=5.6,
        score=82.2,
        notes=(_SCAN,),
    ),
    "vmamba_t_s2l5": PublishedModel(
        title="VMamba-T[s2l5]",
        spec=_four((2, 2, 5, 2)),
        mixers=everywhere("ss2d", 4, shell="final", state_dim=1),
        source="arXiv 2401.10166; MzeroMiko/VMamba at 2ed52ea, vmambav2_tiny",
        parameters=30_705_832,
        macs=4.9,
        score=82.5,
        notes=(_SCAN,),
    ),
    "vmamba_t_s1l8": PublishedModel(
        title="VMamba-T[s1l8]",
        spec=_four((2, 2, 8, 2)),
        mixers=everywhere("ss2d", 4, shell={"name": "final", "expand": 1}, state_dim=1),
        source="arXiv 2401.10166; MzeroMiko/VMamba at 2ed52ea, vmambav2v_tiny",
        parameters=30_249_064,
        macs=4.9,
        score=82.6,
        compared="outputs within 8e-16, input gradients within 3.2e-15 (relative RMS, float64, 64 × 96 pixels; the ε "
        "of the mixers' norms set to 1e-5, the scan that of the authors' reference in place of their kernels)",
        notes=(_SCAN,),
    ),
    "mila_t": PublishedModel(
        title="MILA-T (MLLA-T)",
        spec=_mila(),
        mixers=by_stage(*_with_heads("mlla", 2, 4, 8, 16)),
        source="arXiv 2405.16605; LeapLabTHU/MLLA at 66b6d29, cfgs/mlla_t.yaml",
        parameters=24_392_200,
        macs=4.13,
        macs_counted=True,
        score=83.5,
        measure=f"{TOP1}, trained with MESA",
    ),
    "vssd_t": PublishedModel(
        title="VSSD-T",
        spec=_mila(),
        mixers=by_stage(*_with_heads("vssd", 2, 4, 8), *_with_heads("attention", 16)),
        source="arXiv 2407.18559; YuHengsss/VSSD at 87b753b, vssd_tiny_e300",
        parameters=24_270_724,
        deviations=(Deviation(4 * 3 * 512, "queries, keys and values of the last stage's attention have biases"),),
        macs=4.47,
        score=83.6,
        notes=("softmax attention in the last stage",),
    ),
    "efficientvim_m1": PublishedModel(
        title="EfficientViM-M1",
        spec=PyramidSpec(
            dim=128,
            widths=(1, 1.5, 2.5),
            depths=(2, 2, 2),
            patch=16,
            stem="s16",
            down="mbv",
            residual="gated",
            head="fused",
            eps=1e-5,
        ),
        mixers=by_stage(*(MixerSpec("hsm_ssd", {"state_dim": states}, "published") for states in (49, 25, 9))),
        source="arXiv 2411.15241; mlvlab/EfficientViM at 304340c, EfficientViM_M1",
        parameters=6_679_458,
        deviations=(
            Deviation(-2 * (49 + 25 + 9), "no number per state that is added in front of the softmax, which drops it"),
        ),
        macs=0.236,
        macs_counted=True,
        score=72.9,
        notes=("the head reads the mean tokens of each stage, where theirs reads the means of the hidden states",),
    ),
    "ravlt_t": PublishedModel(
        title="RAVLT-T",
        spec=PyramidSpec(
            dim=64,
            widths=(1, 2, 4, 8),
            depths=(2, 2, 6, 2),
            stem="four",
            down_norm="batch",
            cpe="mixer",
            ffn="conv_after",
            ffn_ratio=3.5,
            layer_scale=1.0,
            drop_path=0.1,
            head="conv",
        ),
        mixers=by_stage(*_with_heads("rala", 1, 2), _gated_attention(4), _gated_attention(8)),
        source="arXiv 2411.07635; qhfan/RALA at a86314f, RAVLT_T",
        parameters=14_897_768,
        deviations=(
            Deviation(
                -26 * (6 * 256 + 2 * 512), "the softmax attention of the last two stages has no 5 × 5 map of values"
            ),
        ),
        macs=2.61,
        macs_counted=True,
        notes=(
            "softmax attention in the last two stages, with the angles of the zoo's rotary positions",
            "its accuracy is not in the authors' repository",
        ),
    ),
    "gspn_t": PublishedModel(
        title="GSPN-T",
        spec=_four((2, 2, 7, 2)),
        mixers=everywhere(
            "gspn",
            4,
            shell={"name": "common", "expand": 1.5, "gate": "none", "conv": 7, "conv_bias": False, "norm": "layer"},
            rank=8,
        ),
        source="arXiv 2501.12381; whj363636/GSPN at c73887d, classification tiny.yaml",
        parameters=31_510_268,
        deviations=(Deviation(-14_400, "no global response norm behind the norm of the mixers' output"),),
        macs=5.3,
        score=83.0,
        notes=(
            "SiLU follows the convolution, and scans run through the image: theirs start anew every few lines, and do "
            "not turn gates and outputs with the directions",
        ),
    ),
}
"""Published pyramids by name."""
