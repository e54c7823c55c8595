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

import torch
from torch import Tensor, nn

from models import positions
from models.blocks import PatchEmbedding, unpatchify
from models.initialisation import initialise, seeded
from models.isotropic.conditioning import ModulatedBlock, ModulatedHead, TimeEmbedding
from models.spec import DiTSpec, Mixers
from models.trunk import Trunk
from operators import InputError
from operators.precision import full_precision
from operators.runtime.fakes import valueless

TIME_SLACK = 1e-3
"""How far a time may lie outside [0, 1]: a solver that adds up its steps misses the end by rounding."""


class DiffusionTransformer(Trunk):
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
            built = self.build_mixers(mixers, cond_dim=spec.dim, seed=seed)
            self.stem = PatchEmbedding(in_channels, spec.dim, spec.patch)
            self.positions = positions.create(spec.positions, spec.dim, self.grid)
            self.time = TimeEmbedding(spec.dim, spec.time_scale)
            self.label = nn.Embedding(num_classes + 1, spec.dim)
            self.blocks = nn.ModuleList(
                ModulatedBlock(mixer, spec.dim, spec.ffn_width, spec.gelu, spec.ffn, spec.local) for mixer in built
            )
            self.head = ModulatedHead(spec.dim, in_channels * spec.patch**2)
        initialise(self, seed)

    @property
    def null_label(self) -> int:
        """The label that stands for no class."""
        return self.num_classes

    def condition(self, time: Tensor, label: Tensor) -> Tensor:
        """Conditioning vectors (B, C) of times (B,) and labels (B,), in the parameters' type under autocast too.

        Raises:
            InputError: see `forward`.
        """
        _check_vector("time", time, "a floating-point", time.is_floating_point())
        _check_vector("label", label, "an int64", label.dtype == torch.int64)
        if time.shape != label.shape:
            raise InputError(f"time and label must be of one length, not {len(time)} and {len(label)}")
        _check_range("time", time, 0, 1, TIME_SLACK, "")
        _check_range("label", label, 0, self.null_label, 0, f" ({self.null_label}: no class)")
        with full_precision(time):
            return self.time(time) + self.label(label)

    def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        """Output (B, in_channels, H, W) for noisy images x of that shape.

        Args:
            x: images (B, in_channels, H, W).
            time: (B,) floating-point numbers in [0, 1].
            label: (B,) int64 numbers 0 … num_classes; the last one, `null_label`, means no class.

        Raises:
            InputError: a wrong shape or type, a grid that a mixer cannot serve; on the CPU and outside compiled code
                also times and labels out of range (elsewhere looking would stall the device).
        """
        tokens = self.tokens(x)
        cond = self.condition(time, label)
        if len(cond) != len(x):
            raise InputError(f"time and label must be of shape ({len(x)},), one number per image, not ({len(cond)},)")
        return unpatchify(self.head(self.run_blocks(tokens, cond), cond), self.spec.patch)

    def no_weight_decay(self) -> set[str]:
        """Full names of the parameters that an optimiser must not decay: mixers' wishes, learned positions, labels."""
        return super().no_weight_decay() | {"label.weight"}

    def outer_macs(self, height: int, width: int) -> int:
        rows, columns = self.token_grid(height, width)
        return self.time.macs() + self.head.macs(rows * columns)


def _check_vector(what: str, value: Tensor, kind: str, right_type: bool) -> None:
    if value.ndim != 1 or not right_type:
        raise InputError(f"{what} must be {kind} tensor of shape (B,), not {value.dtype} {tuple(value.shape)}")


def _check_range(what: str, value: Tensor, least: int, most: int, slack: float, note: str) -> None:
    if value.device.type != "cpu" or torch.compiler.is_compiling() or valueless(value):
        return
    wrong = value[~((value >= least - slack) & (value <= most + slack))]
    if len(wrong):
        raise InputError(f"{what} must lie in {least} … {most}{note}, not {wrong[0].item():g}")
