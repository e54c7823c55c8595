"""What all trunks share: their shape, the run through the blocks, and what they say about themselves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.blocks import check_patch
from models.mixing import MixerPlace, assign, build_mixers
from models.spec import IsotropicSpec, Mixers, ModelCost, TrunkSpec, listed
from operators import InputError, Mixer
from operators.errors import check_number


class CountedStem(Protocol):
    """What a trunk asks of its stem, a module from images (B, in_channels, H, W) to tokens (B, h, w, C)."""

    in_channels: int

    def __call__(self, images: Tensor) -> Tensor: ...

    def macs(self, height: int, width: int) -> int: ...


class MixingBlock(Protocol):
    """What a trunk asks of its blocks, modules from tokens to tokens."""

    mixer: Mixer

    def __call__(self, x: Tensor, *cond: Tensor) -> Tensor: ...

    def macs(self, tokens: int) -> int: ...


class Trunk(nn.Module):
    """Base class of the trunks: stem, positions, blocks with a mixer in each, and whatever a subclass puts after.

    A subclass builds `stem`, `positions` and `blocks`, and counts the rest of itself in `outer_macs`. Its spec is an
    `IsotropicSpec`, whose blocks all see the grid of patches, unless it says otherwise in `token_grid` and `grids`.

    Attributes:
        grid: the tokens (h, w) that the stem makes of an image of the nominal size.
        assigned: for each block, the number of its mixer's spec among those that the model was made of.

    Raises:
        InputError: sizes that do not fit.
    """

    stem: CountedStem
    positions: nn.Module
    blocks: nn.ModuleList

    def __init__(self, spec: TrunkSpec, *, image_size: tuple[int, int], in_channels: int, num_classes: int) -> None:
        super().__init__()
        if len(image_size) != 2:
            raise InputError(f"image_size={image_size!r} must be (height, width)")
        for name, value in zip(("image height", "image width"), image_size, strict=True):
            check_number(name, value, least=1, integer=True)
        check_number("in_channels", in_channels, least=1, integer=True)
        check_number("num_classes", num_classes, least=1, integer=True)
        self.spec = spec
        self.image_size = (image_size[0], image_size[1])
        self.num_classes = num_classes
        self.grid = self.token_grid(*self.image_size)
        self.assigned: list[int] = []

    @abstractmethod
    def outer_macs(self, height: int, width: int) -> int:
        """Multiply-accumulates outside stem and blocks, for one image of height × width pixels."""

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        """The tokens (h, w) that the stem makes of an image of height × width pixels.

        Raises:
            InputError: a size that the patch does not divide.
        """
        patch = cast(IsotropicSpec, self.spec).patch
        check_patch(patch, (height, width))
        return height // patch, width // patch

    def grids(self, height: int, width: int) -> list[tuple[int, int]]:
        """The tokens (h, w) of each block of an image of height × width pixels.

        Raises:
            InputError: a size that the trunk does not serve.
        """
        return [self.token_grid(height, width)] * sum(self.spec.stage_depths)

    def mixed_grids(self, height: int, width: int) -> list[tuple[int, int]]:
        """The grid that the mixer of each block sees: its tokens, unless a subclass adds others. Raises as `grids`."""
        return self.grids(height, width)

    @property
    def block_dims(self) -> list[int]:
        """Channels of each block."""
        shape = zip(self.spec.dims, self.spec.stage_depths, strict=True)
        return [dim for dim, depth in shape for _ in range(depth)]

    def build_mixers(self, mixers: Mixers, *, seed: int, conditioned: bool = False) -> list[Mixer]:
        """A mixer for each block, made for its width and its nominal grid; remembers which spec each is of.

        Mixers of a `conditioned` trunk are told a vector that is as wide as their block.

        Raises:
            InputError: mixers that do not fit the trunk, or that cannot be made.
        """
        self.assigned = assign(mixers, self.spec.stage_depths)
        grids = self.grids(*self.image_size)
        places = [
            MixerPlace(dim, grid, dim if conditioned else None)
            for dim, grid in zip(self.block_dims, grids, strict=True)
        ]
        return build_mixers(listed(mixers), self.assigned, places, seed=seed)

    def tokens(self, images: Tensor) -> Tensor:
        """Tokens with their positions (B, h, w, C) of images (B, in_channels, H, W), on the grid of `token_grid`.

        Raises:
            InputError: images of a wrong shape.
        """
        return self.positions(self.stem(images))

    def run_blocks(self, x: Tensor, *cond: Tensor) -> Tensor:
        """Map x (B, h, w, C) through all blocks, each of which is given `cond` too.

        Raises:
            InputError: a grid that a mixer cannot serve.
        """
        return self._run(self._blocks, x, *cond)

    def _run(self, blocks: Sequence[MixingBlock], x: Tensor, *cond: Tensor) -> Tensor:
        for block in blocks:
            if self.spec.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, *cond, use_reentrant=False)
            else:
                x = block(x, *cond)
        return x

    @property
    def mixers(self) -> list[Mixer]:
        """The mixers, first block first."""
        return [block.mixer for block in self._blocks]

    @property
    def backend(self) -> str:
        """What serves the mixers where the model is: the backends' names joined by `+`, in order of depth."""
        return "+".join(dict.fromkeys(mixer.backend for mixer in self.mixers))

    def no_weight_decay(self) -> set[str]:
        """Full names of the parameters that an optimiser must not decay: the mixers' wishes and learned positions."""
        names = {f"blocks.{i}.mixer.{name}" for i, mixer in enumerate(self.mixers) for name in mixer.no_weight_decay()}
        return names | {f"positions.{name}" for name, _ in self.positions.named_parameters()}

    def hidden_matrices(self) -> set[str]:
        """Full names of the weights of the linear layers in blocks that an optimiser may decay: what Muon serves."""
        layers = self.blocks.named_modules(prefix="blocks")
        names = {f"{name}.weight" for name, layer in layers if isinstance(layer, nn.Linear)}
        return names - self.no_weight_decay()

    def cost(self, height: int | None = None, width: int | None = None) -> ModelCost:
        """Cost for one image of height × width pixels (None: the nominal size).

        Raises:
            InputError: a size that is not positive or that the patch does not divide.
        """
        size = (self.image_size[0] if height is None else height, self.image_size[1] if width is None else width)
        for name, value in zip(("height", "width"), size, strict=True):
            check_number(name, value, least=1, integer=True)
        grids = self.mixed_grids(*size)
        mixing = sum(mixer.cost(*grid).macs for mixer, grid in zip(self.mixers, grids, strict=True))
        outside = sum(block.macs(rows * columns) for block, (rows, columns) in zip(self._blocks, grids, strict=True))
        return ModelCost(
            parameters=sum(parameter.numel() for parameter in self.parameters()),
            macs=self.stem.macs(*size) + outside + self.outer_macs(*size) + mixing,
            mixer_macs=mixing,
        )

    @property
    def _blocks(self) -> list[MixingBlock]:
        return [cast(MixingBlock, block) for block in self.blocks]
