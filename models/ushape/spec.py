"""The shape of a U-shaped generator: data that needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.pyramid.spec import shares
from models.spec import MOST_BLOCKS, POSITIONS, GenerativeSpec
from operators.errors import InputError, check_choice, check_number

KERNELS = (1, 3)
MOST_LEVELS = 5


@dataclass(frozen=True, kw_only=True)
class UDiTSpec(GenerativeSpec):
    """The shape of a `UShapedDiffusionTransformer`: `GenerativeSpec` and the following.

    Its L levels have C, 2 C, 4 C … channels on grids that halve. Stages go down through all levels and up again: with
    three levels they are 0, 1, 2, 1, 0. The last stage has 2 C channels: what comes from below, C, and from the first
    stage, C.

    Attributes:
        dim: channels C of the first stage, even.
        depths: blocks of each stage, 2 L - 1 numbers.
        depth: None, or the number of blocks in all: shared out among the stages in proportion to `depths`, at least one
            to each.
        patch: side of a patch in pixels.
        conv: side of the convolutions that embed patches, halve and double grids and make the output: 3 (DiCo, U-DiT)
            or 1.
        hidden: inner width of the feed-forward networks of the first stage; those of the others are in proportion to
            their channels. None means `ffn_ratio` times the channels, 0 leaves them out.
        ffn_ratio: inner width over channels.
        last_conv: whether a 3 × 3 convolution stands in front of the head (U-DiT).
        positions: `learned`, `sincos` or `none`, of the first stage (see `models.positions`).

    Raises:
        InputError: a value out of range, with what is allowed.
    """

    dim: int
    depths: tuple[int, ...]
    depth: int | None = None
    patch: int = 1
    conv: int = 3
    ffn_ratio: float = 2.0
    last_conv: bool = False
    positions: str = "none"

    def __post_init__(self) -> None:
        check_number("model.dim", self.dim, least=2, integer=True)
        if self.dim % 2:
            raise InputError(
                f"model.dim={self.dim} must be even: half of it, on four tokens in one, makes the second stage; did "
                f"you mean {self.dim + 1}?"
            )
        object.__setattr__(self, "depths", _checked_depths(self.depths))
        if self.depth is not None:
            check_number("model.depth", self.depth, least=1, most=MOST_BLOCKS, integer=True)
        super().__post_init__()
        check_number("model.patch", self.patch, least=1, integer=True)
        check_choice("model.conv", self.conv, KERNELS)
        check_number("model.ffn_ratio", self.ffn_ratio, least=0, most=64)
        check_choice("model.last_conv", self.last_conv, (True, False))
        check_choice("model.positions", self.positions, POSITIONS)

    @property
    def level_dims(self) -> tuple[int, ...]:
        """Channels of each level on the way down."""
        return tuple(self.dim << level for level in range(len(self.depths) // 2 + 1))

    @property
    def stage_levels(self) -> tuple[int, ...]:
        """The level of each stage."""
        bottom = len(self.depths) // 2
        return (*range(bottom), *range(bottom, -1, -1))

    @property
    def condition_levels(self) -> tuple[int, ...]:
        """For each stage, the level whose width it has, and with it the conditioning vector."""
        return (*self.stage_levels[:-1], 1)

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(self.level_dims[level] for level in self.condition_levels)

    @property
    def stage_depths(self) -> tuple[int, ...]:
        return self.depths if self.depth is None else shares(self.depths, self.depth)

    @property
    def hiddens(self) -> tuple[int, ...]:
        if self.hidden is None:
            return tuple(int(self.ffn_ratio * dim) for dim in self.dims)
        return tuple(self.hidden * dim // self.dim for dim in self.dims)


def _checked_depths(depths: Sequence[int]) -> tuple[int, ...]:
    allowed = range(3, 2 * MOST_LEVELS, 2)
    if not isinstance(depths, Sequence) or isinstance(depths, str) or len(depths) not in allowed:
        raise InputError(
            f"model.depths={depths!r} must be a list of one number for each stage, down and up again: "
            f"{', '.join(map(str, allowed))} of them"
        )
    for number, depth in enumerate(depths):
        check_number(f"model.depths[{number}]", depth, least=1, most=MOST_BLOCKS, integer=True)
    return tuple(depths)
