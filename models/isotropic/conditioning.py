"""Parts of a trunk that is told something about the whole image: adaLN-Zero of DiT (arXiv 2212.09748, section 3.2).

A vector c (B, C) per image scales and shifts normalised tokens, and gates every branch. All the maps from c to scales,
shifts and gates start at zero, so that every block starts as the identity, whatever its mixer.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import EPS, FeedForward, GatedFeedForward
from models.initialisation import FixedLinear, StillConv
from models.isotropic.feed_forward import ConvFeedForward
from operators import Mixer
from operators.initialisation import STD
from operators.precision import full_precision, wide

FREQUENCIES = 256


class TimeEmbedding(nn.Module):
    """Maps times (B,) in [0, 1] to vectors (B, C): sines and cosines, then Linear, SiLU, Linear.

    The 256 numbers are cos(scale t ω_k) and sin(scale t ω_k), ω_k = 10000^(-k / 128), k = 0 … 127: the embedding that
    DiT gives to its step, of which there are 1000, and SiT, at scale 1, to its time. At scale 1000, times a thousandth
    apart differ in phase by one radian at the highest frequency, and by a tenth over the whole of [0, 1] at the lowest.
    The linear layers start with deviation 0.02, as DiT's.
    """

    def __init__(self, dim: int, scale: float = 1000.0) -> None:
        super().__init__()
        self.scale = scale
        self.up = FixedLinear(FREQUENCIES, dim, std=STD)
        self.down = FixedLinear(dim, dim, std=STD)

    def forward(self, time: Tensor) -> Tensor:
        """Map time (B,) to (B, C)."""
        dtype = wide(self.up.weight.dtype)
        count = FREQUENCIES // 2
        steps = torch.arange(count, device=time.device, dtype=dtype)
        angles = self.scale * time.to(dtype)[:, None] * torch.exp(steps * (-math.log(10000.0) / count))
        waves = torch.cat((angles.cos(), angles.sin()), dim=-1).to(self.up.weight.dtype)
        return self.down(F.silu(self.up(waves)))

    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return self.up.weight.numel() + self.down.weight.numel()


class Modulation(nn.Module):
    """`count` vectors per image from the conditioning vector: Linear(SiLU(c)), zero at the start."""

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.linear = FixedLinear(dim, count * dim, std=0.0)

    def forward(self, cond: Tensor) -> tuple[Tensor, ...]:
        """`count` tensors (B, 1, 1, C) from cond (B, C)."""
        return self.linear(F.silu(cond))[:, None, None].chunk(self.count, dim=-1)

    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return self.linear.weight.numel()


class ModulatedNorm(nn.LayerNorm):
    """(1 + scale) LN(x) + shift, LN over channels without parameters of its own."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=EPS, elementwise_affine=False)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:  # type: ignore[override]
        """Map x (B, H, W, C), with scale and shift (B, 1, 1, C)."""
        return torch.addcmul(shift, super().forward(x), 1 + scale)


class ModulatedRMSNorm(nn.RMSNorm):
    """(1 + scale) RMS(x) + shift, RMS over channels with a weight for each (FlowDCN, arXiv 2410.22655)."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=EPS)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:  # type: ignore[override]
        """Map x (B, H, W, C), with scale and shift (B, 1, 1, C)."""
        return torch.addcmul(shift, super().forward(x), 1 + scale)


MODULATED_NORMS: dict[str, type[ModulatedNorm | ModulatedRMSNorm]] = {"layer": ModulatedNorm, "rms": ModulatedRMSNorm}
"""What each norm of a block is."""


class ModulatedBlock(nn.Module):
    """Pre-norm residual block under adaLN-Zero; the identity at the start.

        s1, b1, g1, s2, b2, g2 = Linear(SiLU(c))                      # zero at the start
        x += g1 * mixer((1 + s1) * norm(x) + b1, cond=c)
        x += g2 * ffn((1 + s2) * norm(x) + b2)                        # not if `hidden` is 0; then only s1, b1, g1
        x += DW_3(x)                                     # only if `local`; zero at the start

    Args:
        mixer: what mixes the tokens; it may use the conditioning vector as well.
        dim: channels C, and the width of the conditioning vector.
        hidden: inner width of the feed-forward network; 0 leaves it out.
        gelu: see `FeedForward`.
        ffn: `mlp` (`FeedForward`), `swiglu` (`GatedFeedForward`) or `conv` (`ConvFeedForward`).
        local: whether a convolution follows.
        norm: `layer` (`ModulatedNorm`) or `rms` (`ModulatedRMSNorm`).
    """

    def __init__(
        self,
        mixer: Mixer,
        dim: int,
        hidden: int,
        gelu: str = "exact",
        ffn: str = "mlp",
        local: bool = False,
        norm: str = "layer",
    ) -> None:
        super().__init__()
        self.norm = MODULATED_NORMS[norm](dim)
        self.mixer = mixer
        self.ffn: FeedForward | GatedFeedForward | ConvFeedForward | None = None
        self.ffn_norm: ModulatedNorm | ModulatedRMSNorm | None = None
        if hidden:
            self.ffn_norm = MODULATED_NORMS[norm](dim)
            if ffn == "conv":
                self.ffn = ConvFeedForward(dim, hidden, gelu)
            else:
                self.ffn = FeedForward(dim, hidden, gelu) if ffn == "mlp" else GatedFeedForward(dim, hidden)
        self.local = StillConv(dim, dim, 3, depthwise=True) if local else None
        self.modulation = Modulation(dim, 6 if hidden else 3)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Map x (B, H, W, C) to (B, H, W, C), given cond (B, C)."""
        scale, shift, gate, *second = self.modulation(cond)
        x = torch.addcmul(x, gate, self.mixer(self.norm(x, scale, shift), cond))
        if self.ffn is not None and self.ffn_norm is not None:
            scale, shift, gate = second
            x = torch.addcmul(x, gate, self.ffn(self.ffn_norm(x, scale, shift)))
        return x if self.local is None else x + self.local(x)

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates of the block outside its mixer, for `tokens` tokens."""
        taps = 0 if self.local is None else self.local.weight.numel()
        return self.modulation.macs() + tokens * taps + (0 if self.ffn is None else self.ffn.macs(tokens))


class ModulatedHead(nn.Module):
    """Linear((1 + s) * LN(x) + b) on each token, with s, b = Linear(SiLU(c)); both linear layers start at zero."""

    def __init__(self, dim: int, out_features: int) -> None:
        super().__init__()
        self.norm = ModulatedNorm(dim)
        self.modulation = Modulation(dim, 2)
        self.linear = FixedLinear(dim, out_features, std=0.0)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Map x (B, H, W, C) to (B, H, W, out_features), given cond (B, C)."""
        # Half precision would round what the solver adds up over its steps; the layer costs next to nothing.
        with full_precision(x):
            return self.linear(self.norm(x, *self.modulation(cond)))

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates for one image of `tokens` tokens."""
        return self.modulation.macs() + tokens * self.linear.weight.numel()
