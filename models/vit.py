"""An isotropic Vision Transformer whose token mixer is an argument.

    tokens = positions(patches(images))                              # (B, h, w, C)
    tokens += mixer(norm(tokens));  tokens += ffn(norm(tokens))      # depth times
    logits = head(mean over the grid of norm(tokens))

The trunk of ViT and DeiT (arXiv 2010.11929, 2012.12877), but for the class token: on a grid that every mixer can serve
there is no place for it, so the head reads the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models import positions
from models.blocks import Block, PatchEmbedding, norm_layer
from models.initialisation import initialise, seeded
from models.mixing import build_mixers
from models.spec import MixerSpec, ViTSpec
from models.trunk import Trunk


class VisionTransformer(Trunk):
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
        super().__init__(spec, image_size=image_size, in_channels=in_channels, num_classes=num_classes)
        rates = torch.linspace(0, spec.drop_path, spec.depth, device="cpu").tolist()
        # Torch's layers draw their weights when made; `initialise` replaces them, the fork keeps the global state.
        with seeded(seed, "trunk"):
            built = build_mixers(mixers, depth=spec.depth, dim=spec.dim, grid=self.grid, seed=seed)
            self.stem = PatchEmbedding(in_channels, spec.dim, spec.patch)
            self.positions = positions.create(spec.positions, spec.dim, self.grid)
            self.blocks = nn.ModuleList(
                Block(mixer, spec.dim, spec.ffn_width, rate, spec.norm)
                for mixer, rate in zip(built, rates, strict=True)
            )
            self.norm = norm_layer(spec.norm, spec.dim)
            self.head = nn.Linear(spec.dim, num_classes)
        initialise(self, seed)

    def features(self, images: Tensor) -> Tensor:
        """Normalised tokens (B, h, w, C) of images (B, in_channels, H, W), with h = H / patch and w = W / patch.

        Raises:
            InputError: images of a wrong shape, or a grid that a mixer cannot serve.
        """
        return self.norm(self.run_blocks(self.tokens(images)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W); raises as `features` does."""
        return self.head(self.features(images).mean(dim=(1, 2)))

    def outer_macs(self, tokens: int) -> int:
        return self.head.weight.numel()
