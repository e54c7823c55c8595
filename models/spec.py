"""The shapes of models, what they cost, and the published ones by name: data that needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from operators.errors import check_choice, check_names, check_number
from operators.shell.spec import ShellSpec

NORMS = ("layer", "rms")
POSITIONS = ("sincos", "learned", "none")
GELUS = ("exact", "tanh")
POOLINGS = ("mean", "class")
MOST_BLOCKS = 10_000
"""Every block is a tree of Python objects, made one after the other, whatever its size."""


@dataclass(frozen=True)
class ModelCost:
    """Cost of a model for one image, by the rules of `operators.Cost` (element-wise work is not counted).

    Attributes:
        parameters: learnable numbers, mixers included.
        macs: multiply-accumulates of everything: stem, mixers, feed-forward networks, head.
        mixer_macs: the mixers' share of `macs` (their projections and their mixing).
    """

    parameters: int
    macs: int
    mixer_macs: int


@dataclass(frozen=True)
class MixerSpec:
    """A mixer that a model builds once per block; the fields are arguments of `operators.create`.

    Attributes:
        name: one of `operators.names()`.
        params: the mixer's own parameters.
        shell: preset name, `ShellSpec`, or a mapping of a preset's `name` and switches.
        backend: `auto`, or one of the mixer's backends.
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    shell: str | ShellSpec | Mapping[str, Any] = "common"
    backend: str = "auto"


@dataclass(frozen=True, kw_only=True)
class TrunkSpec:
    """The shape of a trunk.

    Attributes:
        dim: channels C.
        depth: number of blocks.
        patch: side of a patch in pixels.
        hidden: inner width of the feed-forward networks; None means 4 C, 0 leaves them out.
        positions: `learned`, `sincos` or `none` (see `models.positions`).
        gelu: of the feed-forward networks: `exact`, or the `tanh` approximation that DiT was trained with.
        checkpointing: recompute blocks in the backward pass: less memory for about a third more time.

    Raises:
        InputError: a value out of range, with what is allowed.
    """

    dim: int
    depth: int
    patch: int
    hidden: int | None = None
    positions: str = "learned"
    gelu: str = "exact"
    checkpointing: bool = False

    def __post_init__(self) -> None:
        for name, most in (("dim", None), ("depth", MOST_BLOCKS), ("patch", None)):
            check_number(f"model.{name}", getattr(self, name), least=1, most=most, integer=True)
        if self.hidden is not None:
            check_number("model.hidden", self.hidden, least=0, integer=True)
        check_choice("model.positions", self.positions, POSITIONS)
        check_choice("model.gelu", self.gelu, GELUS)
        check_choice("model.checkpointing", self.checkpointing, (True, False))

    @property
    def ffn_width(self) -> int:
        """Inner width of the feed-forward networks, 0 without them."""
        return 4 * self.dim if self.hidden is None else self.hidden


@dataclass(frozen=True, kw_only=True)
class ViTSpec(TrunkSpec):
    """The shape of a `VisionTransformer`.

    Attributes:
        drop_path: stochastic depth of the last block; it grows linearly from 0 at the first.
        norm: `layer` or `rms`, before each branch and before the head.
        pooling: what the head reads: the `mean` over the grid, or the token `class`, which mixers see as one token
            more; this takes mixers for which all tokens are alike (`permutation_equivariant`).

    Raises:
        InputError: a value out of range, with what is allowed.
    """

    drop_path: float = 0.0
    norm: str = "layer"
    pooling: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("model.drop_path", self.drop_path, least=0, most=0.95)
        check_choice("model.norm", self.norm, NORMS)
        check_choice("model.pooling", self.pooling, POOLINGS)


@dataclass(frozen=True, kw_only=True)
class DiTSpec(TrunkSpec):
    """The shape of a `DiffusionTransformer`: the fields of `TrunkSpec`, with patches of 2 and fixed positions.

    Attributes:
        time_scale: what the time in [0, 1] is multiplied by before its embedding: 1000 (DiT's number of steps) or 1
            (SiT).
    """

    patch: int = 2
    positions: str = "sincos"
    time_scale: float = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("model.time_scale", self.time_scale, least=1e-3, most=1e6)


PRESETS: dict[str, ViTSpec | DiTSpec] = {
    # The three sizes of DeiT (arXiv 2012.12877, table 1), and one for small images and small machines.
    "vit_nano": ViTSpec(dim=64, depth=4, patch=4),
    "vit_tiny": ViTSpec(dim=192, depth=12, patch=16, drop_path=0.1),
    "vit_small": ViTSpec(dim=384, depth=12, patch=16, drop_path=0.1),
    "vit_base": ViTSpec(dim=768, depth=12, patch=16, drop_path=0.1),
    # The four sizes of DiT (arXiv 2212.09748, table 1), and one for small images and small machines. Attention's heads
    # are 64 wide by default, as in DiT-S, B and L; for the paper's 16 heads of 72 in DiT-XL give it heads=16.
    "dit_nano": DiTSpec(dim=96, depth=4, patch=4),
    "dit_s": DiTSpec(dim=384, depth=12),
    "dit_b": DiTSpec(dim=768, depth=12),
    "dit_l": DiTSpec(dim=1024, depth=24),
    "dit_xl": DiTSpec(dim=1152, depth=28),
}


def names() -> list[str]:
    """Names of all models."""
    return list(PRESETS)


def shaped(name: str, overrides: Mapping[str, Any]) -> ViTSpec | DiTSpec:
    """The preset `name` with those of its fields that `overrides` gives; None keeps the preset's. `match` is left out.

    Raises:
        InputError: an unknown name or field (with the nearest), or a value that cannot be.
    """
    preset = PRESETS[check_choice("model", name, PRESETS)]
    check_names(f"model {name}", overrides, [*(field.name for field in fields(preset)), "match"])
    return replace(preset, **{key: value for key, value in overrides.items() if key != "match" and value is not None})
