"""The shapes of models and what they cost: data that needs no torch. The models by name are in `models.presets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from operators.errors import InputError, check_choice, check_number
from operators.shell.spec import ShellSpec

NORMS = ("layer", "rms")
POSITIONS = ("sincos", "learned", "none")
GELUS = ("exact", "tanh")
POOLINGS = ("mean", "class", "none")
FFN_KINDS = ("mlp", "swiglu", "conv")
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


@dataclass(frozen=True)
class StageMixers:
    """Mixers stage by stage: `stages[s]` is the pattern that is cycled over the blocks of stage s.

    A trunk of one width has one stage.

    Raises:
        InputError: not a pattern of `MixerSpec` for each stage.
    """

    stages: tuple[tuple[MixerSpec, ...], ...]

    def __post_init__(self) -> None:
        for stage in self.stages:
            if not isinstance(stage, tuple) or not stage or not all(isinstance(spec, MixerSpec) for spec in stage):
                raise InputError(f"StageMixers.stages: {stage!r} must be a tuple of one MixerSpec or more")


Mixers: TypeAlias = MixerSpec | Sequence[MixerSpec] | StageMixers
"""The mixer of every block, a pattern that is cycled over all blocks, or a pattern for each stage."""


def listed(mixers: Mixers) -> list[MixerSpec]:
    """Every `MixerSpec` of `mixers`, in the order in which they are written."""
    if isinstance(mixers, StageMixers):
        return [spec for stage in mixers.stages for spec in stage]
    return [mixers] if isinstance(mixers, MixerSpec) else list(mixers)


def like(mixers: Mixers, specs: Sequence[MixerSpec]) -> Mixers:
    """Mixers of the form of `mixers` with other specs, in the order of `listed`."""
    if isinstance(mixers, StageMixers):
        rest = iter(specs)
        return StageMixers(tuple(tuple(next(rest) for _ in stage) for stage in mixers.stages))
    return specs[0] if isinstance(mixers, MixerSpec) else list(specs)


@dataclass(frozen=True, kw_only=True)
class TrunkSpec:
    """What the shapes of all trunks say.

    Attributes:
        hidden: inner width of the feed-forward networks; None means a multiple of the width, 0 leaves them out.
        gelu: of the feed-forward networks: `exact`, or the `tanh` approximation that DiT was trained with.
        checkpointing: recompute blocks in the backward pass: less memory for about a third more time.

    Raises:
        InputError: a value out of range, with what is allowed.
    """

    hidden: int | None = None
    gelu: str = "exact"
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.hidden is not None:
            check_number("model.hidden", self.hidden, least=0, integer=True)
        check_choice("model.gelu", self.gelu, GELUS)
        check_choice("model.checkpointing", self.checkpointing, (True, False))

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of each stage."""
        raise NotImplementedError

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """Blocks of each stage."""
        raise NotImplementedError

    @property
    def hiddens(self) -> tuple[int, ...]:
        """Inner widths of the feed-forward networks of each stage, 0 without them."""
        raise NotImplementedError

    @property
    def ffn_width(self) -> int:
        """Inner width of the feed-forward networks (of the first stage), 0 without them."""
        return self.hiddens[0]

    @property
    def hidden_step(self) -> int:
        """The smallest `hidden` of which the widths of all stages are whole multiples."""
        return 1


@dataclass(frozen=True, kw_only=True)
class IsotropicSpec(TrunkSpec):
    """The shape of a trunk of one width and one grid.

    Attributes:
        dim: channels C.
        depth: number of blocks.
        patch: side of a patch in pixels.
        hidden: as of all trunks; None means 4 C.
        positions: `learned`, `sincos` or `none` (see `models.positions`).

    Raises:
        InputError: a value out of range, with what is allowed.
    """

    dim: int
    depth: int
    patch: int
    positions: str = "learned"

    def __post_init__(self) -> None:
        for name, most in (("dim", None), ("depth", MOST_BLOCKS), ("patch", None)):
            check_number(f"model.{name}", getattr(self, name), least=1, most=most, integer=True)
        super().__post_init__()
        check_choice("model.positions", self.positions, POSITIONS)

    @property
    def dims(self) -> tuple[int, ...]:
        return (self.dim,)

    @property
    def stage_depths(self) -> tuple[int, ...]:
        return (self.depth,)

    @property
    def hiddens(self) -> tuple[int, ...]:
        return (4 * self.dim if self.hidden is None else self.hidden,)


@dataclass(frozen=True, kw_only=True)
class ViTSpec(IsotropicSpec):
    """The shape of a `VisionTransformer`.

    Attributes:
        drop_path: stochastic depth of the last block; it grows linearly from 0 at the first.
        norm: `layer` or `rms`, before each branch and before the head.
        pooling: what the head reads: the `mean` over the grid; the token `class`, which mixers see as one token more;
            this takes mixers for which all tokens are alike (`permutation_equivariant`); or, with `none`, each token by
            itself, to answer for every pixel of its patch.

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
class GenerativeSpec(TrunkSpec):
    """What the shapes of all generators say, trunks that are told a time and a class.

    Attributes:
        time_scale: what the time in [0, 1] is multiplied by before its embedding: 1000 (DiT's number of steps) or 1
            (SiT).
        norm: before each branch of a block: `layer` without parameters, or `rms` with a weight per channel (FlowDCN);
            the head's is always `layer`.
        ffn: `mlp`; `swiglu`: Linear(SiLU(z_1) z_2), z = Linear(x), without biases (arXiv 2002.05202), DiG's; or `conv`:
            depthwise convolutions behind GELU, between products of two linear maps, U-DiT's.
        local: whether a depthwise 3 × 3 convolution with a residual follows each block, zero at the start; DiG's.

    Raises:
        InputError: a value out of range, with what is allowed.
    """

    time_scale: float = 1000
    norm: str = "layer"
    ffn: str = "mlp"
    local: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("model.time_scale", self.time_scale, least=1e-3, most=1e6)
        check_choice("model.norm", self.norm, NORMS)
        check_choice("model.ffn", self.ffn, FFN_KINDS)
        check_choice("model.local", self.local, (True, False))


@dataclass(frozen=True, kw_only=True)
class DiTSpec(IsotropicSpec, GenerativeSpec):
    """The shape of a `DiffusionTransformer`: fields of both, with patches of 2 and fixed positions."""

    patch: int = 2
    positions: str = "sincos"
