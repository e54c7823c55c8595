"""The shape of a pyramid, with the switches by which published ones differ: data that needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from models.spec import MOST_BLOCKS, TrunkSpec
from operators.errors import InputError, check_choice, check_number

STEMS: dict[str, tuple[int, ...] | None] = {
    "patch": None,
    "conv7": (1, 2, 4),
    "two": (1, 2, 4),
    "four": (2, 4),
    "mila": (4,),
    "fast": (4,),
    "s16": (16,),
}
"""The stems, and which strides each may have; None: any."""
DOWNS = ("conv", "merge", "mila", "mbv")
DOWN_NORMS = ("post", "pre", "batch", "none")
STEM_NORMS = ("layer", "layer_no_bias", "batch", "none")
PYRAMID_NORMS = ("layer", "layer_no_bias", "rms", "group", "affine")
PYRAMID_POSITIONS = ("none", "learned", "stages")
BLOCKS = ("pre", "post")
RESIDUALS = ("each", "one", "gated")
CPES = ("none", "mixer", "both")
FFNS = ("mlp", "star", "conv_before", "conv_after", "channel_mix")
HEADS = ("norm_mean", "mean_norm", "batch_mean", "mlp", "mlp_squared", "conv", "conv_gelu", "fused", "ends")
MOST_STAGES = 8


@dataclass(frozen=True, kw_only=True)
class PyramidSpec(TrunkSpec):
    """The shape of a `Pyramid`.

    Attributes:
        dim: channels of the first stage.
        widths: channels of each stage, in units of `dim`.
        depths: blocks of each stage.
        depth: None, or the number of blocks in all: shared out among the stages in proportion to `depths`, at least one
            to each.
        patch: stride of the stem.
        stem: what turns images into tokens:
            `patch` (a linear map of each square: Swin), `conv7` (a 7 × 7 convolution: PoolFormer), `two` (two 3 × 3
            convolutions of stride 2, GELU between them: VMamba), `four` (four, of strides 2, 1, 1, 2: RAVLT), `mila`
            (two of stride 2, between them two in a residual; the last 4 C wide), `fast` (two of stride 2 with ReLU:
            MambaVision), `s16` (four of stride 2 with ReLU, stride 16: EfficientViM).
        stem_norm: after the convolutions of `patch`, `conv7` and `two`: `layer`, `layer_no_bias`, `batch` or `none`;
            the others have batch norms.
        down: what halves the grid between stages: `conv` (a 3 × 3 convolution of stride 2), `merge` (a linear map of
            2 × 2 tokens, normalised: Swin), `mila` (1 × 1, depthwise 3 × 3 of stride 2, 1 × 1), `mbv` (the same with
            batch norms and squeeze-and-excitation, between two depthwise convolutions: EfficientViM).
        down_norm: of `conv`: the stage's norm `post` or `pre`, a `batch` norm behind it, or `none`.
        down_bias: whether `conv` has a bias.
        positions: `learned`, added behind the stem, `stages`, learned and added in front of every stage, or `none`.
        embedding_norm: whether the blocks' norm follows the positions, in front of the first block (Vision-RWKV).
        block: norms before (`pre`) or after (`post`) mixer and feed-forward network.
        residual: `each` of mixer and feed-forward network has one; `one` around both (GFNet); or `gated`, where each of
            depthwise convolution, mixer, depthwise convolution and feed-forward network is blended with its input by a
            learned gate per channel (EfficientViM).
        cpe: depthwise 3 × 3 convolutions with a residual: in front of the `mixer`, in front of `both` mixer and
            feed-forward network, or `none`.
        hidden: inner width of the feed-forward networks of the first stage; those of the others are in proportion to
            their channels. None means `ffn_ratio` times the channels, 0 leaves them out.
        ffn: `mlp`; `star` (StarReLU instead of GELU, no biases: ConvFormer); one with a depthwise 3 × 3 convolution and
            its residual inside: `conv_before` GELU (MSVMamba) or `conv_after` it (RAVLT); or `channel_mix`, gated ReLU²
            of tokens mixed with their neighbours (Vision-RWKV). With `gated` residuals it has batch norms and ReLU.
        ffn_ratio: inner width over channels, one number or one for each stage.
        conv_stages: in how many of the first stages blocks are convolutional: one residual around the mixer and, behind
            it, two 3 × 3 convolutions with batch norms, GELU between them; what else is said of blocks does not hold
            there (MambaVision, whose mixer there is `identity`).
        norm: of blocks, `conv` and head: `layer`, `layer_no_bias`, `rms`, `group` (GroupNorm of one group), or `affine`
            (a learned factor and summand per channel in its place: ResMLP).
        stage_norms: whether that norm follows the last block of every stage.
        eps: of these norms.
        layer_scale: start of a learned factor per channel of each branch (LayerScale, arXiv 2103.17239); 0: none.
        residual_scales: in how many of the last stages each residual's other side has a learned factor per channel that
            starts at 1 (arXiv 2210.13452).
        drop_path: stochastic depth of the last block; it grows linearly from 0 at the first, over all stages.
        drop_path_grows: whether it does; else it is the same for all blocks.
        head: `norm_mean` (norm, mean over the grid, linear), `mean_norm` (the first two the other way round),
            `batch_mean` (with a batch norm), `mlp` (mean_norm, then linear to 4 C, GELU, norm, linear), `mlp_squared`
            (the same with ReLU² and an ε of 1e-5 in the second norm: ConvFormer), `conv` (linear to 2 C, batch norm,
            SiLU, mean, linear: RAVLT), `conv_gelu` (the same to 1.5 C, without bias, and with GELU: STM-Evaluation),
            `fused` (a weighted sum of linear maps of the means of all stages and, once more, of the last), or `ends`
            (norm, first and last token side by side, norm of 2 C channels, linear: ViL).

    Raises:
        InputError: a value out of range, with what is allowed.
    """

    dim: int
    widths: tuple[float, ...]
    depths: tuple[int, ...]
    depth: int | None = None
    patch: int = 4
    stem: str = "two"
    stem_norm: str = "layer"
    down: str = "conv"
    down_norm: str = "post"
    down_bias: bool = True
    positions: str = "none"
    embedding_norm: bool = False
    block: str = "pre"
    residual: str = "each"
    cpe: str = "none"
    ffn: str = "mlp"
    ffn_ratio: float | tuple[float, ...] = 4.0
    conv_stages: int = 0
    norm: str = "layer"
    stage_norms: bool = False
    eps: float = 1e-6
    layer_scale: float = 0.0
    residual_scales: int = 0
    drop_path: float = 0.0
    drop_path_grows: bool = True
    head: str = "norm_mean"

    def __post_init__(self) -> None:
        check_number("model.dim", self.dim, least=1, integer=True)
        object.__setattr__(self, "widths", _each("model.widths", self.widths))
        object.__setattr__(self, "depths", _each("model.depths", self.depths))
        if len(self.widths) != len(self.depths):
            raise InputError(
                f"model.depths={list(self.depths)} must have one number for each of the {len(self.widths)} stages of "
                f"model.widths={list(self.widths)}"
            )
        for number, width in enumerate(self.widths):
            check_number(f"model.widths[{number}]", width, least=1 / 16, most=64)
        for number, depth in enumerate(self.depths):
            check_number(f"model.depths[{number}]", depth, least=1, most=MOST_BLOCKS, integer=True)
        if self.depth is not None:
            check_number("model.depth", self.depth, least=1, most=MOST_BLOCKS, integer=True)
        super().__post_init__()
        check_number("model.patch", self.patch, least=1, integer=True)
        self._check_choices()
        if isinstance(self.ffn_ratio, Sequence):
            object.__setattr__(self, "ffn_ratio", _each("model.ffn_ratio", self.ffn_ratio))
        for ratio in self._ffn_ratios:
            check_number("model.ffn_ratio", ratio, least=0, most=64)
        if len(self._ffn_ratios) != len(self.widths):
            raise InputError(
                f"model.ffn_ratio={list(self._ffn_ratios)} must be a number, or have one for each of the "
                f"{len(self.widths)} stages"
            )
        check_number("model.eps", self.eps, least=1e-12, most=1)
        check_number("model.layer_scale", self.layer_scale, least=0, most=100)
        check_number("model.residual_scales", self.residual_scales, least=0, most=len(self.widths), integer=True)
        check_number("model.drop_path", self.drop_path, least=0, most=0.95)
        check_number("model.conv_stages", self.conv_stages, least=0, most=len(self.widths), integer=True)
        self._check_together()

    def _check_choices(self) -> None:
        for name, allowed in (
            ("stem", STEMS),
            ("stem_norm", STEM_NORMS),
            ("down", DOWNS),
            ("down_norm", DOWN_NORMS),
            ("down_bias", (True, False)),
            ("positions", PYRAMID_POSITIONS),
            ("embedding_norm", (True, False)),
            ("block", BLOCKS),
            ("residual", RESIDUALS),
            ("cpe", CPES),
            ("ffn", FFNS),
            ("norm", PYRAMID_NORMS),
            ("stage_norms", (True, False)),
            ("drop_path_grows", (True, False)),
            ("head", HEADS),
        ):
            check_choice(f"model.{name}", getattr(self, name), allowed)

    def _check_together(self) -> None:
        strides = STEMS[self.stem]
        if strides is not None and self.patch not in strides:
            listed = ", ".join(map(str, strides))
            raise InputError(f"model.patch={self.patch} is no stride of model.stem={self.stem!r}: allowed are {listed}")
        if self.residual != "each":
            given = {"block": "pre", "layer_scale": 0, "residual_scales": 0}
            if self.residual == "gated":
                given |= {"cpe": "none", "ffn": "mlp"}
            for name, value in given.items():
                if getattr(self, name) != value:
                    raise InputError(
                        f"model.{name}={getattr(self, name)!r} does not go with model.residual={self.residual!r}, "
                        f"which needs {value!r}"
                    )
            if not all(self.hiddens):
                raise InputError(f"model.residual={self.residual!r} needs a feed-forward network: model.hidden is 0")
        batch_norms = f"conv_stages={self.conv_stages}" if self.conv_stages else f"residual={self.residual!r}"
        if self.checkpointing and (self.residual == "gated" or self.conv_stages):
            raise InputError(
                "model.checkpointing=True would count every batch twice in the batch norms of "
                f"model.{batch_norms}: leave it out"
            )

    @property
    def _ffn_ratios(self) -> tuple[float, ...]:
        return self.ffn_ratio if isinstance(self.ffn_ratio, tuple) else (self.ffn_ratio,) * len(self.widths)

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(max(1, round(self.dim * width)) for width in self.widths)

    @property
    def stage_depths(self) -> tuple[int, ...]:
        return self.depths if self.depth is None else shares(self.depths, self.depth)

    @property
    def hiddens(self) -> tuple[int, ...]:
        if self.hidden is None:
            return tuple(int(ratio * dim) for ratio, dim in zip(self._ffn_ratios, self.dims, strict=True))
        return tuple(max(1, round(self.hidden * dim / self.dims[0])) if self.hidden else 0 for dim in self.dims)

    @property
    def hidden_step(self) -> int:
        return self.dims[0] // math.gcd(*self.dims)


def shares(depths: Sequence[int], total: int) -> tuple[int, ...]:
    """`total` blocks shared out in proportion to `depths`, at least one to each stage (by largest averages)."""
    counts = [1] * len(depths)
    for _ in range(total - len(depths)):
        wanting = max(range(len(depths)), key=lambda stage: (Fraction(depths[stage], counts[stage] + 1), -stage))
        counts[wanting] += 1
    return tuple(counts)


def _each(name: str, values: Any) -> tuple[Any, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str) or not 1 <= len(values) <= MOST_STAGES:
        raise InputError(f"{name}={values!r} must be a list of one number for each stage, of 1 to {MOST_STAGES} stages")
    return tuple(values)
