"""An isotropic Vision Transformer whose token mixer is an argument.

    tokens = positions(patches(images))                              # (B, h, w, C)
    tokens += mixer(norm(tokens));  tokens += ffn(norm(tokens))      # depth times
    logits = head(mean over the grid of norm(tokens))

The trunk of ViT and DeiT (arXiv 2010.11929, 2012.12877), but for the class token: on a grid that every mixer can serve
there is no place for it, so the head reads the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models import positions
from models.blocks import NORMS, Block, PatchEmbedding, check_patch, norm_layer
from models.cost import ModelCost
from models.initialisation import initialise, seeded
from models.mixing import MixerSpec, build_mixers
from operators import InputError, Mixer
from operators.errors import check_choice, check_number


@dataclass(frozen=True)
class ViTSpec:
    """The shape of a trunk.

    Attributes:
        dim: channels C.
        depth: number of blocks.
        patch: side of a patch in pixels.
        hidden: inner width of the feed-forward networks; None means 4 C, 0 leaves them out.
        positions: `learned`, `sincos` or `none` (see `models.positions`).
        drop_path: stochastic depth of the last block; it grows linearly from 0 at the first.
        norm: `layer` or `rms`, before each branch and before the head.
        checkpointing: recompute blocks in the backward pass: less memory for about a third more time.

    Raises:
        InputError: a value out of range, with what is allowed.
    """

    dim: int
    depth: int
    patch: int
    hidden: int | None = None
    positions: str = "learned"
    drop_path: float = 0.0
    norm: str = "layer"
    checkpointing: bool = False

    def __post_init__(self) -> None:
        for name in ("dim", "depth", "patch"):
            check_number(f"model.{name}", getattr(self, name), least=1, integer=True)
        if self.hidden is not None:
            check_number("model.hidden", self.hidden, least=0, integer=True)
        check_choice("model.positions", self.positions, positions.KINDS)
        check_number("model.drop_path", self.drop_path, least=0, most=0.95)
        check_choice("model.norm", self.norm, NORMS)
        check_choice("model.checkpointing", self.checkpointing, (True, False))


class VisionTransformer(nn.Module):
    """A ViT classifier: `model(images)` maps (B, in_channels, H, W) to logits (B, num_classes).

    Images of other sizes than the nominal one are served where the patch divides them and the mixers take the grid.

    Args:
        spec: the trunk.
        mixers: the mixer of every block, or a pattern cycled over depth.
        image_size: nominal (height, width) in pixels: it scales positions and the mixers' initialisation.
        in_channels: channels of the images.
        num_classes: number of logits.
        seed: keys every parameter's random stream, together with its name; torch's global generator is left alone.

    Raises:
        InputError: sizes that do not fit, or a mixer that cannot be made.
    """

    def __init__(
        self,
        spec: ViTSpec,
        *,
        mixers: MixerSpec | Sequence[MixerSpec],
        image_size: tuple[int, int],
        in_channels: int,
        num_classes: int,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if len(image_size) != 2:
            raise InputError(f"image_size={image_size!r} must be (height, width)")
        for name, value in zip(("image height", "image width"), image_size, strict=True):
            check_number(name, value, least=1, integer=True)
        check_number("in_channels", in_channels, least=1, integer=True)
        check_number("num_classes", num_classes, least=1, integer=True)
        self.spec = spec
        self.image_size = (image_size[0], image_size[1])
        check_patch(spec.patch, self.image_size)
        grid = (image_size[0] // spec.patch, image_size[1] // spec.patch)
        hidden = 4 * spec.dim if spec.hidden is None else spec.hidden
        rates = torch.linspace(0, spec.drop_path, spec.depth, device="cpu").tolist()
        # Torch's layers draw their weights when made; `initialise` replaces them, the fork keeps the global state.
        with seeded(seed, "trunk"):
            built = build_mixers(mixers, depth=spec.depth, dim=spec.dim, grid=grid, seed=seed)
            self.stem = PatchEmbedding(in_channels, spec.dim, spec.patch)
            self.positions = positions.create(spec.positions, spec.dim, grid)
            self.blocks = nn.ModuleList(
                Block(mixer, spec.dim, hidden, rate, spec.norm) for mixer, rate in zip(built, rates, strict=True)
            )
            self.norm = norm_layer(spec.norm, spec.dim)
            self.head = nn.Linear(spec.dim, num_classes)
        initialise(self, seed)

    def features(self, images: Tensor) -> Tensor:
        """Normalised tokens (B, h, w, C) of images (B, in_channels, H, W), with h = H / patch and w = W / patch.

        Raises:
            InputError: images of a wrong shape, or a grid that a mixer cannot serve.
        """
        x = self.positions(self.stem(images))
        for block in self.blocks:
            if self.spec.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return self.norm(x)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W); raises as `features` does."""
        return self.head(self.features(images).mean(dim=(1, 2)))

    @property
    def mixers(self) -> list[Mixer]:
        """The mixers, first block first."""
        return [cast(Block, block).mixer for block in self.blocks]

    @property
    def backend(self) -> str:
        """What serves the mixers where the model is: the backends' names joined by `+`, in order of depth."""
        return "+".join(dict.fromkeys(mixer.backend for mixer in self.mixers))

    def no_weight_decay(self) -> set[str]:
        """Full names of the parameters that an optimiser must not decay: the mixers' wishes and learned positions."""
        names = {f"blocks.{i}.mixer.{name}" for i, mixer in enumerate(self.mixers) for name in mixer.no_weight_decay()}
        return names | {f"positions.{name}" for name, _ in self.positions.named_parameters()}

    def cost(self, height: int | None = None, width: int | None = None) -> ModelCost:
        """Cost for one image of height × width pixels (None: the nominal size).

        Raises:
            InputError: a size that is not positive or that the patch does not divide.
        """
        size = (self.image_size[0] if height is None else height, self.image_size[1] if width is None else width)
        for name, value in zip(("height", "width"), size, strict=True):
            check_number(name, value, least=1, integer=True)
        check_patch(self.spec.patch, size)
        rows, columns = size[0] // self.spec.patch, size[1] // self.spec.patch
        mixing = sum(mixer.cost(rows, columns).macs for mixer in self.mixers)
        trunk = self.stem.macs(*size) + self.head.weight.numel()
        trunk += sum(cast(Block, block).macs(rows * columns) for block in self.blocks)
        return ModelCost(
            parameters=sum(parameter.numel() for parameter in self.parameters()),
            macs=trunk + mixing,
            mixer_macs=mixing,
        )
