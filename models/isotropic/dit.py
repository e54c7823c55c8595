"""An isotropic Diffusion Transformer whose token mixer is an argument.

    c = time_embedding(t) + label_embedding(y)                       # (B, C)
    tokens = positions(patches(x))                                   # (B, h, w, C)
    tokens = block(tokens, c)                                        # depth times; adaLN-Zero, mixers get c as cond
    output = image whose patches are head(tokens, c)                 # (B, in_channels, H, W)

The trunk of DiT (arXiv 2212.09748, its adaLN-Zero block), with these differences: the output has as many channels as
the input, since flow matching learns no variance; positions follow `models.positions`; GELU is exact by default, not
its tanh approximation; the trunk's projections start as everywhere here (see `models.initialisation`).
"""

from __future__ import annotations

from torch import Tensor, nn

from models import positions
from models.blocks import PatchEmbedding, unpatchify
from models.initialisation import initialise, seeded
from models.isotropic.conditioning import ModulatedBlock, ModulatedHead, TimeEmbedding
from models.isotropic.generative import GenerativeTrunk, check_batch
from models.spec import DiTSpec, Mixers
from operators.precision import full_precision


class DiffusionTransformer(GenerativeTrunk):
    """A class-conditional DiT: `model(x, time, label)` maps x (B, in_channels, H, W) to a tensor of the same shape.

    Every block is the identity and the output is zero until training moves them. Images of other sizes than the nominal
    one are served where the patch divides them and the mixers take the grid. The residual stream and the output keep
    the parameters' type under autocast.

    Args:
        spec: the trunk.
        mixers: the mixer of every block, or a pattern cycled over depth; they get the conditioning vector as `cond`.
        image_size: nominal (height, width) in pixels: it scales positions and the mixers' initialisation.
        in_channels: channels of the images, and of the output.
        num_classes: number K of classes; label K (`null_label`) means none.
        seed: keys every parameter's random stream, together with its name; torch's global generator is left alone.

    Raises:
        InputError: sizes that do not fit, or a mixer that cannot be made.
    """

    def __init__(
        self,
        spec: DiTSpec,
        *,
        mixers: Mixers,
        image_size: tuple[int, int],
        in_channels: int,
        num_classes: int,
        seed: int = 0,
    ) -> None:
        super().__init__(spec, image_size=image_size, in_channels=in_channels, num_classes=num_classes)
        self.spec: DiTSpec = spec
        # Torch's layers draw their weights when made; `initialise` replaces them, the fork keeps the global state.
        with seeded(seed, "trunk"):
            built = self.build_mixers(mixers, conditioned=True, seed=seed)
            self.stem = PatchEmbedding(in_channels, spec.dim, spec.patch)
            self.positions = positions.create(spec.positions, spec.dim, self.grid)
            self.time = TimeEmbedding(spec.dim, spec.time_scale)
            self.label = nn.Embedding(num_classes + 1, spec.dim)
            self.blocks = nn.ModuleList(
                ModulatedBlock(mixer, spec.dim, spec.ffn_width, spec.gelu, spec.ffn, spec.local, spec.norm)
                for mixer in built
            )
            self.head = ModulatedHead(spec.dim, in_channels * spec.patch**2)
        initialise(self, seed)

    def condition(self, time: Tensor, label: Tensor) -> Tensor:
        """Conditioning vectors (B, C) of times (B,) and labels (B,), in the parameters' type under autocast too.

        Raises:
            InputError: see `forward`.
        """
        self.check_condition(time, label)
        with full_precision(time):
            return self.time(time) + self.label(label)

    def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        tokens = self.tokens(x)
        cond = self.condition(time, label)
        check_batch(x, time)
        return unpatchify(self.head(self.run_blocks(tokens, cond), cond), self.spec.patch)

    def no_weight_decay(self) -> set[str]:
        """Full names of the parameters that an optimiser must not decay: mixers' wishes, learned positions, labels."""
        return super().no_weight_decay() | {"label.weight"}

    def outer_macs(self, height: int, width: int) -> int:
        rows, columns = self.token_grid(height, width)
        return self.time.macs() + self.head.macs(rows * columns)
