"""Parts of a trunk. They work on grids (B, H, W, C) and do not know which mixer they hold."""

from __future__ import annotations

import math

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from operators import Mixer
from operators.errors import InputError, check_choice

NORMS = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}
EPS = 1e-6


def norm_layer(kind: str, dim: int) -> nn.LayerNorm | nn.RMSNorm:
    """LayerNorm (`layer`) or RMSNorm (`rms`) over channels, eps 1e-6. Raises `InputError` for another kind."""
    return NORMS[check_choice("model.norm", kind, NORMS)](dim, eps=EPS)


class PatchEmbedding(nn.Linear):
    """Cuts images (B, in_channels, H, W) into patch × patch squares and maps each linearly to C channels (B, h, w, C).

    Equal to a convolution of that kernel and stride, with weights in the order channel, row, column. As one matrix
    product it takes a third to all of the convolution's time on a CPU, forward and backward (the presets' sizes).
    """

    def __init__(self, in_channels: int, dim: int, patch: int) -> None:
        super().__init__(in_channels * patch**2, dim)
        self.in_channels = in_channels
        self.patch = patch

    def forward(self, images: Tensor) -> Tensor:
        """Tokens (B, H / patch, W / patch, C) of images (B, in_channels, H, W).

        Raises:
            InputError: another number of axes or channels, or a size that the patch does not divide.
        """
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise InputError(f"the model takes images (B, {self.in_channels}, H, W), not {tuple(images.shape)}")
        side = self.patch
        check_patch(side, (images.shape[2], images.shape[3]))
        patches = rearrange(images, "b c (h row) (w column) -> b h w (c row column)", row=side, column=side)
        # Autocast would hand over half precision and with it set the precision of the residual stream.
        return F.linear(patches, self.weight, self.bias).to(self.weight.dtype)

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates for one image of height × width pixels."""
        return height * width // self.patch**2 * self.weight.numel()


def unpatchify(patches: Tensor, patch: int) -> Tensor:
    """Images (B, channels, H, W) of patches (B, H / patch, W / patch, channels · patch²).

    The numbers of a patch are in the order channel, row, column, as `PatchEmbedding` reads them.
    """
    return rearrange(patches, "b h w (c row column) -> b c (h row) (w column)", row=patch, column=patch)


def check_patch(patch: int, size: tuple[int, int]) -> None:
    """Raise `InputError` unless `patch` divides both sides of an image of `size` pixels."""
    if size[0] % patch or size[1] % patch:
        common = math.gcd(*size)
        low = [side for side in range(1, math.isqrt(common) + 1) if common % side == 0]
        allowed = sorted({*low, *(common // side for side in low)})
        best = min(allowed, key=lambda side: (abs(side - patch), -side))
        raise InputError(
            f"model.patch={patch} does not divide an image of {size[0]}×{size[1]} pixels: "
            f"allowed are {', '.join(map(str, allowed))}; did you mean {best}?"
        )


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): in training, zeroes a whole sample with probability `rate`.

    Survivors are divided by 1 - rate, so the mean is kept. Draws come from torch's generator of the input's device,
    unless `kept` says who survives.

    Attributes:
        kept: None, or bool (B, `BRANCHES`) for the next batch, from somebody who knows its samples.
    """

    BRANCHES = 2
    """Branches of a block that share one."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.kept: Tensor | None = None

    def forward(self, x: Tensor, branch: int = 0) -> Tensor:
        """Return x (B, …), of a block's branch `branch`, with some samples dropped.

        In evaluation or at rate 0 it is x itself.
        """
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        kept = x.new_empty(len(x)).bernoulli_(keep) if self.kept is None else self.kept[:, branch].to(x.dtype)
        return x * (kept / keep).view(-1, *[1] * (x.ndim - 1))

    def extra_repr(self) -> str:
        return f"rate={self.rate:.4g}"


class FeedForward(nn.Module):
    """Linear(C, hidden), GELU (`exact`, or its `tanh` approximation), Linear(hidden, C) on each token."""

    def __init__(self, dim: int, hidden: int, gelu: str = "exact") -> None:
        super().__init__()
        self.approximate = "tanh" if gelu == "tanh" else "none"
        self.up = nn.Linear(dim, hidden)
        self.down = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (…, C) to (…, C)."""
        return self.down(F.gelu(self.up(x), approximate=self.approximate))

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates for `tokens` tokens."""
        return tokens * (self.up.weight.numel() + self.down.weight.numel())


class GatedFeedForward(nn.Module):
    """Linear(SiLU(z_1) z_2), z = Linear(x) of 2 hidden channels, without biases (SwiGLU, arXiv 2002.05202)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (…, C) to (…, C)."""
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * value)

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates for `tokens` tokens."""
        return tokens * (self.up.weight.numel() + self.down.weight.numel())


class Block(nn.Module):
    """Pre-norm residual block: x += drop(mixer(norm(x))), then x += drop(ffn(norm(x))) unless `hidden` is 0.

    Args:
        mixer: what mixes the tokens.
        dim: channels C.
        hidden: inner width of the feed-forward network; 0 leaves it out (the mixer-only block of Mamba and Vim).
        drop_path: probability with which a sample skips each branch in training.
        norm: `layer` or `rms`.
        gelu: see `FeedForward`.
    """

    def __init__(
        self,
        mixer: Mixer,
        dim: int,
        hidden: int,
        drop_path: float = 0.0,
        norm: str = "layer",
        gelu: str = "exact",
    ) -> None:
        super().__init__()
        self.mixer_norm = norm_layer(norm, dim)
        self.mixer = mixer
        self.ffn_norm = norm_layer(norm, dim) if hidden else None
        self.ffn = FeedForward(dim, hidden, gelu) if hidden else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C) to (B, H, W, C)."""
        x = x + self.drop_path(self.mixer(self.mixer_norm(x)))
        if self.ffn is not None and self.ffn_norm is not None:
            x = x + self.drop_path(self.ffn(self.ffn_norm(x)), branch=1)
        return x

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates of the block outside its mixer, for `tokens` tokens."""
        return 0 if self.ffn is None else self.ffn.macs(tokens)
