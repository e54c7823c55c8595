"""A pyramid whose token mixers are an argument: stages of blocks, each on half the grid of the one before.

    tokens = positions(stem(images))                                 # (B, h, w, C_0)
    tokens = block(tokens)                                           # depths[0] times, and a norm with stage_norms
    tokens = down(tokens)                                            # (B, ⌈h / 2⌉, ⌈w / 2⌉, C_1)
    tokens = block(tokens)                                           # depths[1] times, and so on
    logits = head(tokens)

The trunk of Swin, PoolFormer, VMamba and others; `PyramidSpec` has the switches by which they differ. One stage makes a
trunk of one width with these switches. Images of any size are served, where the mixers take the grids: every halving
rounds up (see `models.pyramid.stems`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from models import positions
from models.initialisation import initialise, seeded
from models.pyramid.downsampling import Downsampling, create_down
from models.pyramid.heads import create_head
from models.pyramid.parts import NORM_LAYERS, reduced
from models.pyramid.spec import PyramidSpec
from models.pyramid.stage_blocks import ConvBlock, GatedBlock, StageBlock
from models.pyramid.stems import create_stem
from models.spec import Mixers
from models.trunk import Trunk
from operators import Mixer


class Pyramid(Trunk):
    """A classifier of several stages: `model(images)` maps (B, in_channels, H, W) to logits (B, num_classes).

    Every mixer is made for the width and the nominal grid of its stage. Blocks are numbered through all stages.

    Args:
        spec: the trunk.
        mixers: the mixer of every block, a pattern cycled over all blocks, or `StageMixers`.
        image_size: nominal (height, width) in pixels: it scales positions and the mixers' initialisation.
        in_channels: channels of the images.
        num_classes: number of logits.
        seed: keys every parameter's random stream, together with its name; torch's global generator is left alone.

    Raises:
        InputError: sizes that do not fit, or a mixer that cannot be made.
    """

    def __init__(
        self,
        spec: PyramidSpec,
        *,
        mixers: Mixers,
        image_size: tuple[int, int],
        in_channels: int,
        num_classes: int,
        seed: int = 0,
    ) -> None:
        super().__init__(spec, image_size=image_size, in_channels=in_channels, num_classes=num_classes)
        self.spec: PyramidSpec = spec
        # Torch's layers draw their weights when made; `initialise` replaces them, the fork keeps the global state.
        with seeded(seed, "trunk"):
            built = self.build_mixers(mixers, seed=seed)
            self.stem = create_stem(spec, in_channels)
            places = list(zip(spec.dims, self.stage_grids(*self.image_size), strict=True))
            self.positions = positions.create("none" if spec.positions == "none" else "learned", *places[0])
            later = "learned" if spec.positions == "stages" else "none"
            self.stage_positions = nn.ModuleList(positions.create(later, *place) for place in places[1:])
            self.embedding_norm = NORM_LAYERS[spec.norm if spec.embedding_norm else "none"](spec.dims[0], spec.eps)
            self.downs = nn.ModuleList(create_down(spec, dim, out_dim) for dim, out_dim in pairwise(spec.dims))
            self.blocks = nn.ModuleList(self._create_blocks(built))
            kind = spec.norm if spec.stage_norms else "none"
            self.stage_norms = nn.ModuleList(NORM_LAYERS[kind](dim, spec.eps) for dim in spec.dims)
            self.head = create_head(spec, num_classes)
        initialise(self, seed)

    def _create_blocks(self, mixers: list[Mixer]) -> list[nn.Module]:
        spec, numbered = self.spec, iter(mixers)
        least = 0 if spec.drop_path_grows else spec.drop_path
        rates = iter(torch.linspace(least, spec.drop_path, len(mixers), device="cpu").tolist())
        blocks: list[nn.Module] = []
        for stage, (dim, hidden, depth) in enumerate(zip(spec.dims, spec.hiddens, spec.stage_depths, strict=True)):
            scaled = stage >= len(spec.dims) - spec.residual_scales
            for _ in range(depth):
                mixer, rate = next(numbered), next(rates)
                if stage < spec.conv_stages:
                    blocks.append(ConvBlock(mixer, dim=dim, drop_path=rate))
                elif spec.residual == "gated":
                    blocks.append(GatedBlock(mixer, spec, dim=dim, hidden=hidden, drop_path=rate))
                else:
                    blocks.append(StageBlock(mixer, spec, dim=dim, hidden=hidden, drop_path=rate, scaled=scaled))
        return blocks

    def tokens(self, images: Tensor) -> Tensor:
        return self.embedding_norm(super().tokens(images))

    def stages(self, images: Tensor) -> list[Tensor]:
        """What each stage makes of images (B, in_channels, H, W): (B, h_s, w_s, C_s), first stage first.

        Raises:
            InputError: images of a wrong shape, or a grid that a mixer cannot serve.
        """
        x, outputs, first = self.tokens(images), [], 0
        for stage, depth in enumerate(self.spec.stage_depths):
            if stage:
                x = self.stage_positions[stage - 1](self.downs[stage - 1](x))
            x = self.stage_norms[stage](self._run(self._blocks[first : first + depth], x))
            outputs.append(x)
            first += depth
        return outputs

    def features(self, images: Tensor) -> Tensor:
        """What the last stage makes of images; as `stages`."""
        return self.stages(images)[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W); raises as `stages` does."""
        return self.head(self.stages(images))

    def no_weight_decay(self) -> set[str]:
        """As of all trunks, and the positions of later stages."""
        return super().no_weight_decay() | {
            f"stage_positions.{name}" for name, _ in self.stage_positions.named_parameters()
        }

    def stage_grids(self, height: int, width: int) -> list[tuple[int, int]]:
        """The tokens (h, w) of each stage of an image of height × width pixels."""
        grids = [self.token_grid(height, width)]
        for _ in self.spec.dims[1:]:
            grids.append(reduced(grids[-1], 2))
        return grids

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        """The tokens of the first stage: both sides over the stem's stride, rounded up."""
        return reduced((height, width), self.spec.patch)

    def grids(self, height: int, width: int) -> list[tuple[int, int]]:
        """The tokens of each block: those of its stage."""
        shape = zip(self.stage_grids(height, width), self.spec.stage_depths, strict=True)
        return [grid for grid, depth in shape for _ in range(depth)]

    def outer_macs(self, height: int, width: int) -> int:
        grids = self.stage_grids(height, width)
        downs = sum(cast(Downsampling, down).macs(grid) for down, grid in zip(self.downs, grids, strict=False))
        rows, columns = grids[-1]
        return downs + self.head.macs(rows * columns)
