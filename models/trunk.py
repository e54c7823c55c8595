"""What all trunks share: their shape, the run through the blocks, and what they say about themselves."""

from __future__ import annotations

from abc import abstractmethod
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.blocks import Block, PatchEmbedding, check_patch
from models.isotropic.conditioning import ModulatedBlock
from models.spec import ModelCost, TrunkSpec
from operators import InputError, Mixer
from operators.errors import check_number


class Trunk(nn.Module):
    """Base class of the trunks: patches, positions, blocks with a mixer in each, and whatever a subclass puts after.

    A subclass builds `stem`, `positions` and `blocks`, and counts the rest of itself in `outer_macs`.

    Raises:
        InputError: sizes that do not fit.
    """

    stem: PatchEmbedding
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
        check_patch(spec.patch, image_size)
        self.spec = spec
        self.image_size = (image_size[0], image_size[1])
        self.num_classes = num_classes
        self.grid = (image_size[0] // spec.patch, image_size[1] // spec.patch)

    @abstractmethod
    def outer_macs(self, tokens: int) -> int:
        """Multiply-accumulates outside stem and blocks, for one image of `tokens` tokens."""

    def mixed_grid(self, rows: int, columns: int) -> tuple[int, int]:
        """The grid that the mixers see of an image of rows × columns patches."""
        return rows, columns

    def tokens(self, images: Tensor) -> Tensor:
        """Patches with their positions (B, h, w, C) of images (B, in_channels, H, W), h = H / patch, w = W / patch.

        Raises:
            InputError: images of a wrong shape.
        """
        return self.positions(self.stem(images))

    def run_blocks(self, x: Tensor, *cond: Tensor) -> Tensor:
        """Map x (B, h, w, C) through all blocks, each of which is given `cond` too.

        Raises:
            InputError: a grid that a mixer cannot serve.
        """
        for block in self.blocks:
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
        check_patch(self.spec.patch, size)
        rows, columns = self.mixed_grid(size[0] // self.spec.patch, size[1] // self.spec.patch)
        mixing = sum(mixer.cost(rows, columns).macs for mixer in self.mixers)
        outside = sum(block.macs(rows * columns) for block in self._blocks)
        return ModelCost(
            parameters=sum(parameter.numel() for parameter in self.parameters()),
            macs=self.stem.macs(*size) + outside + self.outer_macs(rows * columns) + mixing,
            mixer_macs=mixing,
        )

    @property
    def _blocks(self) -> list[Block | ModulatedBlock]:
        return [cast(Block | ModulatedBlock, block) for block in self.blocks]
