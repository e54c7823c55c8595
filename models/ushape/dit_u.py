"""A U-shaped Diffusion Transformer whose token mixers are an argument (U-DiT, arXiv 2405.02730; DiCo, 2505.11196).

    c_l = time_embedding_l(t) + label_embedding_l(y)                 # (B, C_l), one for each level l; C_l = 2^l C
    x = positions(conv(patches of the image))                        # (B, h, w, C)
    x = skip_0 = blocks(x, c_0)                                      # down through the levels …
    x = skip_1 = blocks(unshuffle(conv(x)), c_1)                     # (B, ⌈h / 2⌉, ⌈w / 2⌉, 2 C)
    x = blocks(unshuffle(conv(x)), c_2)                              # … to the last, (B, ⌈h / 4⌉, ⌈w / 4⌉, 4 C)
    x = blocks(Linear([shuffle(conv(x)) | skip_1]), c_1)             # and up again
    x = blocks(Linear([shuffle(conv(x)) | skip_0]), c_1)             # (B, h, w, 2 C), as wide as level 1
    output = image whose patches are head(x, c_1)                    # (B, in_channels, H, W)

U-DiT has one convolution more, in front of the head. Blocks are those of the isotropic trunk (adaLN-Zero). With the
mixer `dico` in the `published` shell this is the network of shallowdream204/DiCo at b596b05 (`dico_models.py`), with
these differences: the output has as many channels as the input, since flow matching learns no variance, and projections
start as everywhere here (see `models.initialisation`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from models import positions
from models.blocks import check_patch, unpatchify
from models.initialisation import initialise, seeded
from models.isotropic.conditioning import ModulatedBlock
from models.isotropic.generative import GenerativeTrunk, check_batch
from models.pyramid.parts import GridConv, reduced
from models.spec import Mixers
from models.ushape.parts import Condition, ConvStem, ModulatedConvHead, ShuffledUp, UnshuffledDown
from models.ushape.spec import UDiTSpec


class UShapedDiffusionTransformer(GenerativeTrunk):
    """A class-conditional U-shaped DiT: `model(x, time, label)` maps x (B, in_channels, H, W) to a tensor of its shape.

    Every block is the identity and the output is zero until training moves them. Images of every size that the patch
    divides are served, where the mixers take the grids: halving rounds up, doubling cuts off (see
    `models.ushape.parts`). Every mixer is made for the width and the nominal grid of its stage, and gets that width's
    conditioning vector as `cond`. Blocks are numbered through all stages. The residual stream and the output keep the
    parameters' type under autocast.

    Args:
        spec: the trunk.
        mixers: the mixer of every block, a pattern cycled over all blocks, or `StageMixers`.
        image_size: nominal (height, width) in pixels: it scales positions and the mixers' initialisation.
        in_channels: channels of the images, and of the output.
        num_classes: number K of classes; label K (`null_label`) means none.
        seed: keys every parameter's random stream, together with its name; torch's global generator is left alone.

    Raises:
        InputError: sizes that do not fit, or a mixer that cannot be made.
    """

    def __init__(
        self,
        spec: UDiTSpec,
        *,
        mixers: Mixers,
        image_size: tuple[int, int],
        in_channels: int,
        num_classes: int,
        seed: int = 0,
    ) -> None:
        super().__init__(spec, image_size=image_size, in_channels=in_channels, num_classes=num_classes)
        self.spec: UDiTSpec = spec
        levels, conv = spec.level_dims, spec.conv
        # Torch's layers draw their weights when made; `initialise` replaces them, the fork keeps the global state.
        with seeded(seed, "trunk"):
            built = self.build_mixers(mixers, conditioned=True, seed=seed)
            self.stem = ConvStem(in_channels, spec.dim, spec.patch, conv)
            self.positions = positions.create(spec.positions, spec.dim, self.grid)
            self.conditions = nn.ModuleList(Condition(dim, num_classes + 1, spec.time_scale) for dim in levels)
            self.downs = nn.ModuleList(UnshuffledDown(dim, conv) for dim in levels[:-1])
            self.ups = nn.ModuleList(
                ShuffledUp(dim, out_dim, conv) for dim, out_dim in pairwise(spec.dims[len(levels) - 1 :])
            )
            hiddens = zip(spec.hiddens, spec.stage_depths, strict=True)
            each = zip(built, self.block_dims, [hidden for hidden, depth in hiddens for _ in range(depth)], strict=True)
            self.blocks = nn.ModuleList(
                ModulatedBlock(mixer, dim, hidden, spec.gelu, spec.ffn, spec.local, spec.norm)
                for mixer, dim, hidden in each
            )
            self.last_conv = GridConv(spec.dims[-1], spec.dims[-1]) if spec.last_conv else None
            self.head = ModulatedConvHead(spec.dims[-1], in_channels * spec.patch**2, conv)
        initialise(self, seed)

    def condition(self, time: Tensor, label: Tensor) -> list[Tensor]:
        """The conditioning vector (B, C_l) of each level, of times (B,) and labels (B,).

        Raises:
            InputError: see `forward`.
        """
        self.check_condition(time, label)
        return [condition(time, label) for condition in self.conditions]

    def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        tokens = self.tokens(x)
        conds = self.condition(time, label)
        check_batch(x, time)
        last = self.stages(tokens, conds)[-1]
        if self.last_conv is not None:
            last = self.last_conv(last)
        return unpatchify(self.head(last, conds[1]), self.spec.patch)

    def stages(self, x: Tensor, conds: list[Tensor]) -> list[Tensor]:
        """What each stage makes of the tokens x (B, h, w, C): (B, h_s, w_s, C_s), first stage first.

        Args:
            x: tokens of images.
            conds: a conditioning vector for each level.

        Raises:
            InputError: a grid that a mixer cannot serve.
        """
        outputs: list[Tensor] = []
        bottom, first = len(self.downs), 0
        for stage, depth in enumerate(self.spec.stage_depths):
            if stage > bottom:
                x = self.ups[stage - bottom - 1](x, outputs[self.spec.stage_levels[stage]])
            elif stage:
                x = self.downs[stage - 1](x)
            x = self._run(self._blocks[first : first + depth], x, conds[self.spec.condition_levels[stage]])
            outputs.append(x)
            first += depth
        return outputs

    def no_weight_decay(self) -> set[str]:
        """Full names of the parameters that an optimiser must not decay: mixers' wishes, learned positions, labels."""
        labels = {f"conditions.{level}.label.weight" for level in range(len(self.conditions))}
        return super().no_weight_decay() | labels

    def stage_grids(self, height: int, width: int) -> list[tuple[int, int]]:
        """The tokens (h, w) of each stage of an image of height × width pixels.

        Raises:
            InputError: a size that the patch does not divide.
        """
        grid = self.token_grid(height, width)
        return [reduced(grid, 1 << level) for level in self.spec.stage_levels]

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        """The tokens of the first stage.

        Raises:
            InputError: a size that the patch does not divide.
        """
        check_patch(self.spec.patch, (height, width))
        return height // self.spec.patch, width // self.spec.patch

    def grids(self, height: int, width: int) -> list[tuple[int, int]]:
        """The tokens of each block: those of its stage. Raises as `stage_grids`."""
        shape = zip(self.stage_grids(height, width), self.spec.stage_depths, strict=True)
        return [grid for grid, depth in shape for _ in range(depth)]

    def outer_macs(self, height: int, width: int) -> int:
        grids = self.stage_grids(height, width)
        bottom = len(self.downs)
        conditions = sum(cast(Condition, condition).time.macs() for condition in self.conditions)
        downs = sum(cast(UnshuffledDown, down).macs(grid) for down, grid in zip(self.downs, grids, strict=False))
        ups = sum(
            cast(ShuffledUp, up).macs(*around) for up, around in zip(self.ups, pairwise(grids[bottom:]), strict=True)
        )
        tokens = grids[-1][0] * grids[-1][1]
        last = 0 if self.last_conv is None else self.last_conv.macs(tokens)
        return conditions + downs + ups + last + self.head.macs(tokens)
