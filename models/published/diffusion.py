"""Published diffusion transformers for the latents, 32 × 32 × 4, of ImageNet at 256 px."""

from __future__ import annotations

from models.published.entry import Deviation, PublishedModel, by_stage, everywhere
from models.spec import DiTSpec, MixerSpec, StageMixers

_DIT = "arXiv 2212.09748, table 4; facebookresearch/DiT at ed81ce2"
_DIG = "arXiv 2405.18428; hustvl/DiG at e3ac0ba, models_dig.py"
FID = "ImageNet 256 px FID-50K, 400K steps, no guidance"
_SIDE = 32 // 2


def _latent(
    title: str,
    spec: DiTSpec,
    mixers: StageMixers,
    source: str,
    parameters: int,
    macs: float | None,
    score: float | None,
) -> PublishedModel:
    variance = Deviation(
        -(2 * 2 * 4 * (spec.dim + 1)),
        "no learned variance: the last layer has half the channels",
    )
    table = Deviation(-(_SIDE**2 * spec.dim), "positions are a formula here, a frozen table there")
    return PublishedModel(
        title=title,
        spec=spec,
        mixers=mixers,
        source=source,
        parameters=parameters,
        deviations=(variance, table),
        macs=macs,
        score=score,
        measure=FID,
        image_size=(32, 32),
        in_channels=4,
    )


def _dit(
    letters: str, dim: int, depth: int, heads: int, parameters: int, macs: float, score: float | None
) -> PublishedModel:
    spec = DiTSpec(dim=dim, depth=depth, gelu="tanh")
    mixers = everywhere("attention", heads=heads)
    return _latent(f"DiT-{letters}/2", spec, mixers, _DIT, parameters, macs, score)


def _dig(
    letters: str, dim: int, hidden: int, heads: int, parameters: int, macs: float | None, score: float
) -> PublishedModel:
    spec = DiTSpec(dim=dim, depth=12, hidden=hidden, ffn="swiglu", local=True)
    orders = ("row", "row_r", "col", "col_r")  # turned round after every block, transposed after every second
    layers = tuple(MixerSpec("gla", {"orders": [order], "heads": heads}, "published") for order in orders)
    return _latent(f"DiG-{letters}/2", spec, by_stage(layers), _DIG, parameters, macs, score)


DIFFUSION: dict[str, PublishedModel] = {
    "dit_s_2": _dit("S", 384, 12, 6, 32_963_360, 6.06, 68.4),
    "dit_b_2": _dit("B", 768, 12, 12, 130_512_416, 23.01, 43.47),
    "dit_l_2": _dit("L", 1024, 24, 16, 458_102_816, 80.71, None),
    "dit_xl_2": _dit("XL", 1152, 28, 16, 675_129_632, 118.64, 19.47),
    "dig_s_2": _dig("S", 384, 1024, 6, 33_081_632, 4.30, 62.06),
    "dig_b_2": _dig("B", 768, 2048, 12, 130_748_192, None, 39.50),
}
"""Published diffusion transformers by name."""
