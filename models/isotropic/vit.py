"""An isotropic Vision Transformer whose token mixer is an argument.

    tokens = positions(patches(images))                              # (B, h, w, C)
    tokens += mixer(norm(tokens));  tokens += ffn(norm(tokens))      # depth times
    logits = head(mean over the grid of norm(tokens))

The trunk of ViT and DeiT (arXiv 2010.11929, 2012.12877), but for the class token: on a grid that every mixer can serve
there is no place for it, so the head reads the mean. Mixers for which all tokens are alike can have it, with
`pooling="class"`: they see one row of tokens, of which the first is the class token, and the head reads that. With
`pooling="none"` the head reads each token, and answers for every pixel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models import positions
from models.blocks import Block, PatchEmbedding, norm_layer, unpatchify
from models.initialisation import initialise, seeded
from models.spec import Mixers, ViTSpec
from models.trunk import Trunk
from operators.errors import InputError


class VisionTransformer(Trunk):
    """A ViT: `model(images)` maps (B, in_channels, H, W) to logits (B, num_classes), or without pooling to
    (B, num_classes, H, W).

    Images of other sizes than the nominal one are served where the patch divides them and the mixers take the grid.

    Args:
        spec: the trunk.
        mixers: the mixer of every block, or a pattern cycled over depth (see `models.spec.Mixers`).
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
        mixers: Mixers,
        image_size: tuple[int, int],
        in_channels: int,
        num_classes: int,
        seed: int = 0,
    ) -> None:
        super().__init__(spec, image_size=image_size, in_channels=in_channels, num_classes=num_classes)
        self.spec: ViTSpec = spec
        rates = torch.linspace(0, spec.drop_path, spec.depth, device="cpu").tolist()
        # Torch's layers draw their weights when made; `initialise` replaces them, the fork keeps the global state.
        with seeded(seed, "trunk"):
            built = self.build_mixers(mixers, seed=seed)
            self.stem = PatchEmbedding(in_channels, spec.dim, spec.patch)
            self.positions = positions.create(spec.positions, spec.dim, self.grid)
            self.blocks = nn.ModuleList(
                Block(mixer, spec.dim, spec.ffn_width, rate, spec.norm, spec.gelu)
                for mixer, rate in zip(built, rates, strict=True)
            )
            self.norm = norm_layer(spec.norm, spec.dim)
            answers = spec.patch**2 if spec.pooling == "none" else 1
            self.head = nn.Linear(spec.dim, answers * num_classes)
            self.class_token = nn.Parameter(torch.zeros(spec.dim)) if spec.pooling == "class" else None
        for mixer in self.mixers if self.class_token is not None else ():
            if not mixer.permutation_equivariant:
                raise InputError(
                    "model.pooling='class' needs mixers for which all tokens are alike, and "
                    f"{mixer.card.name} as it is here tells them apart by their place: take model.pooling=mean"
                )
        initialise(self, seed)

    def features(self, images: Tensor) -> Tensor:
        """Normalised tokens (B, h, w, C) of images (B, in_channels, H, W), with h = H / patch and w = W / patch.

        Raises:
            InputError: images of a wrong shape, or a grid that a mixer cannot serve.
        """
        tokens = self.tokens(images)
        mixed = self._mixed(tokens)
        return mixed if self.class_token is None else mixed[:, :, 1:].view_as(tokens)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images (B, in_channels, H, W), see the class; raises as `features` does."""
        mixed = self._mixed(self.tokens(images))
        if self.spec.pooling == "none":
            return unpatchify(self.head(mixed), self.spec.patch)
        return self.head(mixed.mean(dim=(1, 2)) if self.class_token is None else mixed[:, 0, 0])

    def _mixed(self, tokens: Tensor) -> Tensor:
        """Normalised output of the blocks: (B, h, w, C), or (B, 1, 1 + h w, C) with a class token."""
        if self.class_token is not None:
            first = self.class_token.to(tokens.dtype).expand(len(tokens), 1, 1, -1)
            tokens = torch.cat((first, tokens.flatten(1, 2)[:, None]), dim=2)
        return self.norm(self.run_blocks(tokens))

    def mixed_grids(self, height: int, width: int) -> list[tuple[int, int]]:
        """As in `Trunk`; with a class token one row of all tokens and it."""
        grids = self.grids(height, width)
        return grids if self.class_token is None else [(1, 1 + rows * columns) for rows, columns in grids]

    def outer_macs(self, height: int, width: int) -> int:
        tokens = math.prod(self.token_grid(height, width)) if self.spec.pooling == "none" else 1
        return tokens * self.head.weight.numel()
