"""Published diffusion transformers for the latents, 32 × 32 × 4, of ImageNet at 256 px."""

from __future__ import annotations

from typing import Any

from models.published.entry import Deviation, PublishedModel, by_stage, everywhere
from models.spec import DiTSpec, GenerativeSpec, MixerSpec, StageMixers
from models.ushape.spec import UDiTSpec

_DIT = "arXiv 2212.09748, table 4; facebookresearch/DiT at ed81ce2"
_DIG = "arXiv 2405.18428; hustvl/DiG at e3ac0ba, models_dig.py"
_DICO = "arXiv 2505.11196; shallowdream204/DiCo at b596b05, dico_models.py and README.md"
_UDIT = "arXiv 2405.02730; YuchuanTian/U-DiT at 7fcce5e, udit_models.py"
_FLOWDCN = "arXiv 2410.22655; MCG-NJU/FlowDCN at aa48042, src/models/flowdcn.py and README.md"
_POM = "arXiv 2411.12663; davidpicard/HoMM at 71f8318, src/model/network/imagediffusion.py"
FID = "ImageNet 256 px FID-50K, 400K steps, no guidance"
_SDE = "ImageNet 256 px FID-50K, 400K steps, 250 steps of an SDE solver"
_SIDE = 32 // 2


def _latent(
    title: str,
    spec: GenerativeSpec,
    mixers: StageMixers,
    source: str,
    parameters: int,
    macs: float | None,
    score: float | None,
    deviations: tuple[Deviation, ...],
    **more: Any,
) -> PublishedModel:
    return PublishedModel(
        title=title,
        spec=spec,
        mixers=mixers,
        source=source,
        parameters=parameters,
        deviations=deviations,
        macs=macs,
        score=score,
        **{"measure": FID, **more},
        image_size=(32, 32),
        in_channels=4,
    )


def _variance(parameters: int, tokens: int = _SIDE**2, biases: int = 16) -> Deviation:
    """What half of the last layer has, whose maps have so many parameters, biases among them, on so many tokens."""
    macs = -tokens * (parameters - biases) / 1e9
    return Deviation(-parameters, "no learned variance: the last layer has half the channels", macs)


def _of_a_dit(dim: int) -> tuple[Deviation, ...]:
    table = Deviation(-(_SIDE**2 * dim), "positions are a formula here, a frozen table there")
    return _variance(2 * 2 * 4 * (dim + 1)), table


def _dit(
    letters: str, dim: int, depth: int, heads: int, parameters: int, macs: float, score: float | None
) -> PublishedModel:
    spec = DiTSpec(dim=dim, depth=depth, gelu="tanh")
    mixers = everywhere("attention", heads=heads)
    return _latent(f"DiT-{letters}/2", spec, mixers, _DIT, parameters, macs, score, _of_a_dit(dim))


def _dig(
    letters: str, dim: int, hidden: int, heads: int, parameters: int, macs: float | None, score: float
) -> PublishedModel:
    spec = DiTSpec(dim=dim, depth=12, hidden=hidden, ffn="swiglu", local=True)
    orders = ("row", "row_r", "col", "col_r")  # turned round after every block, transposed after every second
    layers = tuple(MixerSpec("gla", {"orders": [order], "heads": heads}, "published") for order in orders)
    return _latent(f"DiG-{letters}/2", spec, by_stage(layers), _DIG, parameters, macs, score, _of_a_dit(dim))


def _dico(
    letters: str,
    dim: int,
    depths: tuple[int, ...],
    parameters: int,
    macs: float,
    score: float | None,
    *,
    ffn_ratio: float = 2,
    compared: str = "",
) -> PublishedModel:
    spec = UDiTSpec(dim=dim, depths=depths, ffn_ratio=ffn_ratio)
    return _latent(
        f"DiCo-{letters}",
        spec,
        everywhere("dico", len(depths)),
        _DICO,
        parameters,
        macs,
        score,
        (_variance(4 * (9 * 2 * dim + 1), tokens=32**2, biases=4),),
        macs_counted=True,
        compared=compared,
    )


def _udit(letters: str, dim: int, heads: int, parameters: int, macs: float, *, compared: str = "") -> PublishedModel:
    spec = UDiTSpec(dim=dim, depths=(4, 10, 16, 10, 4), ffn="conv", last_conv=True)  # their blocks are pairs
    blocks = list(zip((32**2, 16**2, 8**2, 16**2, 32**2), spec.depths, spec.dims, strict=True))
    twice = Deviation(
        sum(26 * depth * width for _, depth, width in blocks),
        "values have a convolution of their own; theirs is that of queries and keys",
        sum(25 * tokens * depth * width for tokens, depth, width in blocks) / 1e9,
    )
    unfolded = Deviation(
        0,
        "maps after one another, and convolutions side by side, stay apart; theirs are counted as made one for use",
        sum(tokens * depth * (2 * width**2 + 20 * width) for tokens, depth, width in blocks) / 1e9,
    )
    return _latent(
        f"U-DiT-{letters}",
        spec,
        everywhere("udit", 5, heads=heads),
        _UDIT,
        parameters,
        macs,
        None,
        (_variance(4 * (9 * 2 * dim + 1), tokens=32**2, biases=4), twice, unfolded),
        macs_counted=True,
        compared=compared,
        notes=("the residual around the values' convolution is its centre, which starts without it",),
    )


def _flow_dcn(
    letters: str,
    dim: int,
    depth: int,
    groups: int,
    parameters: int,
    macs: float,
    score: float | None,
    *,
    compared: str = "",
) -> PublishedModel:
    spec = DiTSpec(dim=dim, depth=depth, hidden=8 * dim // 3, positions="none", norm="rms", ffn="swiglu", time_scale=1)
    places = Deviation(-18 * depth, "the nine places of a filter are a formula here, frozen parameters in each block")
    return _latent(
        f"FlowDCN-{letters}/2",
        spec,
        everywhere("dcn", variant="flow_dcn", groups=groups),
        _FLOWDCN,
        parameters,
        macs,
        score,
        (_variance(2 * 2 * 4 * (dim + 1)), places),
        macs_counted=True,
        measure=_SDE,
        compared=compared,
        notes=(
            "samples fade to zero beyond all borders: the authors' kernel rounds towards zero, and extrapolates above "
            "and on the left",
            "whether the score is guided, the authors do not say",
        ),
    )


def _polymorpher(
    letters: str, dim: int, depth: int, ffn: int, parameters: int, macs: float, *, compared: str = ""
) -> PublishedModel:
    spec = DiTSpec(dim=dim, depth=depth, hidden=ffn * dim)
    ours, theirs = 256 * dim + dim**2 + 2 * dim, 8 * dim**2 + 5 * dim
    time = Deviation(
        ours - theirs,
        "the embedding of time is DiT's; theirs has C frequencies and is 4 C wide inside",
        (ours - theirs + 3 * dim) / 1e9,
    )
    return _latent(
        f"Polymorpher-{letters}/2 (DiH)",
        spec,
        everywhere("homm", order=2),
        _POM,
        parameters,
        macs,
        None,
        (time, Deviation(-(dim // 2), "frequencies are a formula here, frozen parameters there")),
        macs_counted=True,
        compared=compared,
        notes=(
            "gates are counted from zero here; theirs are 1 + g, where g starts at -1",
            "positions turn at 10000^(-k / (C / 4)) a token here; theirs at odd multiples of π over the image",
            "the paper's FID of 2.46 (with guidance) is of a model of unknown size",
        ),
    )


DIFFUSION: dict[str, PublishedModel] = {
    "dit_s_2": _dit("S", 384, 12, 6, 32_963_360, 6.06, 68.4),
    "dit_b_2": _dit("B", 768, 12, 12, 130_512_416, 23.01, 43.47),
    "dit_l_2": _dit("L", 1024, 24, 16, 458_102_816, 80.71, None),
    "dit_xl_2": _dit("XL", 1152, 28, 16, 675_129_632, 118.64, 19.47),
    "dig_s_2": _dig("S", 384, 1024, 6, 33_081_632, 4.30, 62.06),
    "dig_b_2": _dig("B", 768, 2048, 12, 130_748_192, None, 39.50),
    "dico_s": _dico(
        "S",
        128,
        (5, 4, 4, 4, 4),
        33_137_672,
        4.236,
        49.97,
        compared="outputs within 4.4e-15, input gradients within 2.3e-15 (relative RMS, float64, 32 × 32 and 16 × 24 "
        "pixels; random modulation; their embedding of time, which is computed in float32, in float64)",
    ),
    "dico_b": _dico("B", 256, (5, 4, 4, 4, 4), 129_992_712, 16.856, 27.20),
    "dico_l": _dico("L", 352, (9, 8, 9, 8, 9), 463_897_992, 60.17, 13.66),
    "dico_xl": _dico("XL", 416, (9, 9, 10, 9, 9), 701_151_368, 87.22, 11.67),
    "dico_h": _dico("H", 416, (14, 12, 10, 12, 14), 1_037_408_328, 194.03, None, ffn_ratio=4),
    "udit_s": _udit(
        "S",
        96,
        4,
        58_896_568,
        6.028,
        compared="outputs within 4.5e-15, input gradients within 3.0e-15 (relative RMS, float64, 32 × 32 pixels; "
        "random modulation; their maps as in training; their times and angles, in float32, in float64)",
    ),
    "udit_b": _udit("B", 192, 8, 231_251_304, 22.195),
    "udit_l": _udit("L", 384, 16, 916_335_304, 84.940),
    "flowdcn_s_2": _flow_dcn(
        "S",
        384,
        12,
        6,
        30_300_632,
        4.843,
        54.6,
        compared="outputs within 1.1e-15, input gradients within 3.8e-15 (relative RMS, float64, 32 × 32 pixels; "
        "weights 0.02 from their start; a plain kernel that rounds down for theirs; norms and times in float64)",
    ),
    "flowdcn_b_2": _flow_dcn("B", 768, 12, 12, 120_099_512, 19.277, 28.5),
    "flowdcn_l_2": _flow_dcn("L", 1024, 24, 16, 421_503_952, 68.429, 13.8),
    "flowdcn_xl_2": _flow_dcn("XL", 1152, 28, 16, 618_948_120, 100.422, None),
    "polymorpher_s_2": _polymorpher(
        "S",
        384,
        12,
        3,
        44_429_392,
        8.169,
        compared="outputs within 1.1e-15, input gradients within 1.4e-15 (relative RMS, float64, 32 × 32 pixels; with "
        "their positions here and the embedding of time of this project there)",
    ),
    "polymorpher_b_2": _polymorpher("B", 768, 12, 3, 176_742_544, 32.67),
    "polymorpher_l_2": _polymorpher("L", 1024, 24, 2, 565_642_768, 103.25),
    "polymorpher_xl_2": _polymorpher("XL", 1152, 28, 2, 832_547_536, 152.45),
}
"""Published diffusion transformers by name."""
