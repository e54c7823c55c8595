"""The blocks of a pyramid, with a mixer in each. They map grids (B, H, W, C) and do not know which mixer they hold."""

from __future__ import annotations

from torch import Tensor, nn

from models.blocks import DropPath, FeedForward
from models.initialisation import Constant
from models.pyramid.channel_mix import ChannelMix
from models.pyramid.parts import NORM_LAYERS, BatchFeedForward, ChannelScale, GridConv, GridFeedForward, StarFeedForward
from models.pyramid.spec import PyramidSpec
from models.pyramid.stems import ConvNorm
from operators import Mixer

GATE = 1e-4
"""Start of the logits of gated residuals (`EfficientViM.py` of mlvlab/EfficientViM at 304340c)."""


class StageBlock(nn.Module):
    """A block with residuals around mixer and feed-forward network.

        x += DW_3(x)                                           cpe: mixer or both
        x = a x + drop(s mixer(norm(x)))                       block: pre
        x = a x + drop(s norm(mixer(x)))                       block: post
        x += DW_3(x)                                           cpe: both
        the same with the feed-forward network                 unless hidden is 0
        x += drop(ffn(norm(mixer(norm(x)))))                   residual: one

    Args:
        mixer: what mixes the tokens.
        spec: the pyramid's shape.
        dim: channels C of the stage.
        hidden: inner width of the feed-forward network; 0 leaves it out.
        drop_path: probability with which a sample skips each branch in training.
        scaled: whether residuals have factors a.
    """

    def __init__(
        self, mixer: Mixer, spec: PyramidSpec, *, dim: int, hidden: int, drop_path: float, scaled: bool
    ) -> None:
        super().__init__()
        self.post, self.one = spec.block == "post", spec.residual == "one"
        self.mixer_norm = NORM_LAYERS[spec.norm](dim, spec.eps)
        self.mixer = mixer
        self.mixer_scale = _scale(dim, spec.layer_scale)
        self.mixer_residual = _scale(dim, float(scaled))
        self.mixer_position = GridConv(dim, dim, depthwise=True) if spec.cpe != "none" else None
        self.ffn: FeedForward | StarFeedForward | GridFeedForward | ChannelMix | None = None
        self.ffn_norm: nn.Module | None = None
        self.ffn_position: GridConv | None = None
        if hidden:
            self.ffn_norm = NORM_LAYERS[spec.norm](dim, spec.eps)
            if spec.ffn == "mlp":
                self.ffn = FeedForward(dim, hidden, spec.gelu)
            elif spec.ffn == "star":
                self.ffn = StarFeedForward(dim, hidden)
            elif spec.ffn == "channel_mix":
                self.ffn = ChannelMix(dim, hidden)
            else:
                self.ffn = GridFeedForward(dim, hidden, spec.gelu, first=spec.ffn == "conv_before")
            self.ffn_scale = _scale(dim, spec.layer_scale)
            self.ffn_residual = _scale(dim, float(scaled))
            self.ffn_position = GridConv(dim, dim, depthwise=True) if spec.cpe == "both" else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C) to (B, H, W, C)."""
        if self.mixer_position is not None:
            x = x + self.mixer_position(x)
        if self.one:
            assert self.ffn is not None
            assert self.ffn_norm is not None
            mixed = self.ffn_norm(self.mixer(self.mixer_norm(x)))
            if self.ffn_position is not None:
                mixed = mixed + self.ffn_position(mixed)
            return x + self.drop_path(self.ffn(mixed))
        branch = self.mixer_norm(self.mixer(x)) if self.post else self.mixer(self.mixer_norm(x))
        x = self.mixer_residual(x) + self.drop_path(self.mixer_scale(branch))
        if self.ffn is not None and self.ffn_norm is not None:
            if self.ffn_position is not None:
                x = x + self.ffn_position(x)
            branch = self.ffn_norm(self.ffn(x)) if self.post else self.ffn(self.ffn_norm(x))
            x = self.ffn_residual(x) + self.drop_path(self.ffn_scale(branch), branch=1)
        return x

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates of the block outside its mixer, for so many tokens."""
        parts = (self.ffn, self.mixer_position, self.ffn_position)
        return sum(part.macs(tokens) for part in parts if part is not None)


class GatedResidual(Constant):
    """x + σ(l) (y − x): the input is blended with a branch, channel by channel."""

    def __init__(self, dim: int) -> None:
        super().__init__((dim,), GATE)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Blend x and y (B, H, W, C)."""
        return x + self.value.sigmoid() * (y - x)


class GatedBlock(nn.Module):
    """The block of EfficientViM (arXiv 2411.15241): four branches, each blended with its input.

        x ← (1 − g) x + g f(x),   f = BN(DW_3), mixer(norm), BN(DW_3), feed-forward network with batch norms

    Args:
        mixer: what mixes the tokens.
        spec: the pyramid's shape.
        dim: channels C of the stage.
        hidden: inner width of the feed-forward network.
        drop_path: probability with which a sample keeps what it is, instead of mixer or feed-forward network.
    """

    def __init__(self, mixer: Mixer, spec: PyramidSpec, *, dim: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.mixer_norm = NORM_LAYERS[spec.norm](dim, spec.eps)
        self.mixer = mixer
        self.ffn = BatchFeedForward(dim, hidden)
        self.mixer_position = ConvNorm(dim, dim, depthwise=True)
        self.ffn_position = ConvNorm(dim, dim, depthwise=True)
        self.gates = nn.ModuleList(GatedResidual(dim) for _ in range(4))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C) to (B, H, W, C)."""
        first, second, third, fourth = self.gates
        x = first(x, self.mixer_position(x))
        x = x + self.drop_path(second(x, self.mixer(self.mixer_norm(x))) - x)
        x = third(x, self.ffn_position(x))
        return x + self.drop_path(fourth(x, self.ffn(x)) - x, branch=1)

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates of the block outside its mixer, for so many tokens."""
        return self.ffn.macs(tokens) + self.mixer_position.conv.macs(tokens) + self.ffn_position.conv.macs(tokens)


class ConvBlock(nn.Module):
    """The block of convolutional stages (MambaVision, arXiv 2407.08083, section 3.2): x + drop(f(mixer(x))).

    f is BN(Conv_3(GELU(BN(Conv_3(z))))) with full convolutions, biases, and the tanh approximation of GELU.

    Args:
        mixer: what mixes the tokens in front of the convolutions.
        dim: channels C of the stage.
        drop_path: probability with which a sample skips the branch in training.
    """

    def __init__(self, mixer: Mixer, *, dim: int, drop_path: float) -> None:
        super().__init__()
        self.mixer = mixer
        self.first = ConvNorm(dim, dim, bias=True, activation="gelu_tanh")
        self.second = ConvNorm(dim, dim, bias=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, H, W, C) to (B, H, W, C)."""
        return x + self.drop_path(self.second(self.first(self.mixer(x))))

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates of the block outside its mixer, for so many tokens."""
        return self.first.conv.macs(tokens) + self.second.conv.macs(tokens)


def _scale(dim: int, start: float) -> nn.Module:
    return ChannelScale(dim, start) if start else nn.Identity()
