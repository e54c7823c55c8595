"""What turns the stages of a pyramid into logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.initialisation import Constant
from models.pyramid.parts import NORM_LAYERS, GridBatchNorm, TokenLinear
from models.pyramid.spec import PyramidSpec


class PyramidHead(nn.Module):
    """Base class of the heads: `head(stages)` maps the outputs of all stages to logits (B, num_classes)."""

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates for one image of so many tokens in the last stage."""
        raise NotImplementedError


class MeanHead(PyramidHead):
    """Linear(mean over the grid of norm(x)), or Linear(norm(mean of x)), of the last stage's x.

    Args:
        spec: the pyramid's shape.
        num_classes: number of logits.
        norm: of `NORM_LAYERS`.
        first: whether the norm comes before the mean.
    """

    def __init__(self, spec: PyramidSpec, num_classes: int, norm: str, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.norm = NORM_LAYERS[norm](spec.dims[-1], spec.eps)
        self.linear = nn.Linear(spec.dims[-1], num_classes)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Logits of the stages (B, H, W, C)."""
        if self.first:
            return self.linear(self.norm(stages[-1]).mean(dim=(1, 2)))
        return self.linear(self.norm(stages[-1].mean(dim=(1, 2), keepdim=True)).flatten(1))

    def macs(self, tokens: int) -> int:
        return self.linear.weight.numel()


class DeepHead(PyramidHead):
    """Linear(norm(act(Linear(norm(mean over the grid))))), 4 C wide inside; act is GELU, or ReLU² if `squared`.

    With ReLU² the inner norm's ε is 1e-5 (`metaformer_baselines.py` of sail-sg/metaformer at 64c534a).
    """

    def __init__(self, spec: PyramidSpec, num_classes: int, *, squared: bool) -> None:
        super().__init__()
        self.squared, dim = squared, spec.dims[-1]
        kind = {"layer_no_bias": "layer"}.get(spec.norm, spec.norm)  # biases are wanting in blocks alone
        self.norm = NORM_LAYERS[kind](dim, spec.eps)
        self.up = nn.Linear(dim, 4 * dim)
        self.inner_norm = NORM_LAYERS[kind](4 * dim, 1e-5 if squared else spec.eps)
        self.linear = nn.Linear(4 * dim, num_classes)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Logits of the stages (B, H, W, C)."""
        x = self.up(self.norm(stages[-1].mean(dim=(1, 2), keepdim=True)))
        x = F.relu(x).square() if self.squared else F.gelu(x)
        return self.linear(self.inner_norm(x)).flatten(1)

    def macs(self, tokens: int) -> int:
        return self.up.weight.numel() + self.linear.weight.numel()


class ConvHead(PyramidHead):
    """Linear(mean over the grid of SiLU(BN(Linear(x)))), 2 C wide inside (RAVLT).

    With `gelu` it is GELU in place of SiLU, 1.5 C wide, and the first map has no bias (STM-Evaluation).
    """

    def __init__(self, spec: PyramidSpec, num_classes: int, *, gelu: bool) -> None:
        super().__init__()
        dim = spec.dims[-1]
        inner = max(1, int(1.5 * dim)) if gelu else 2 * dim
        self.activation = F.gelu if gelu else F.silu
        self.up = TokenLinear(dim, inner, bias=not gelu)
        self.norm = GridBatchNorm(inner)
        self.linear = nn.Linear(inner, num_classes)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Logits of the stages (B, H, W, C)."""
        return self.linear(self.activation(self.norm(self.up(stages[-1]))).mean(dim=(1, 2)))

    def macs(self, tokens: int) -> int:
        return self.up.macs(tokens) + self.linear.weight.numel()


class StageWeights(Constant):
    """Softmax of learned numbers, equal at the start."""

    def __init__(self, count: int) -> None:
        super().__init__((count,), 0.0)

    def forward(self) -> Tensor:
        """Numbers (count,) that sum to one."""
        return self.value.softmax(0)


class FusedHead(PyramidHead):
    """Σ_s w_s Linear_s(norm_s(mean over stage s)), the last stage counted twice; w a softmax (EfficientViM).

    The paper's first terms read the means of the mixers' hidden states instead, one norm and map for each stage; a
    trunk that does not know its mixers reads the means of the stages' tokens.
    """

    def __init__(self, spec: PyramidSpec, num_classes: int) -> None:
        super().__init__()
        dims = (*spec.dims, spec.dims[-1])
        self.norms = nn.ModuleList(NORM_LAYERS[spec.norm](dim, spec.eps) for dim in dims)
        self.linears = nn.ModuleList(nn.Linear(dim, num_classes) for dim in dims)
        self.weights = StageWeights(len(dims))

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Logits of the stages (B, H, W, C)."""
        means = [stage.mean(dim=(1, 2), keepdim=True) for stage in (*stages, stages[-1])]
        parts = zip(self.linears, self.norms, means, strict=True)
        logits = torch.stack([linear(norm(mean)).flatten(1) for linear, norm, mean in parts], dim=-1)
        return (logits * self.weights()).sum(-1)

    def macs(self, tokens: int) -> int:
        return sum(parameter.numel() for name, parameter in self.linears.named_parameters() if name.endswith("weight"))


class EndsHead(PyramidHead):
    """Linear(LN([first | last])), of the first and the last token of norm(x) in order of rows (ViL)."""

    def __init__(self, spec: PyramidSpec, num_classes: int) -> None:
        super().__init__()
        self.norm = NORM_LAYERS[spec.norm](spec.dims[-1], spec.eps)
        self.pair_norm = NORM_LAYERS["layer"](2 * spec.dims[-1], spec.eps)
        self.linear = nn.Linear(2 * spec.dims[-1], num_classes)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Logits of the stages (B, H, W, C)."""
        tokens = self.norm(stages[-1]).flatten(1, 2)
        return self.linear(self.pair_norm(torch.cat([tokens[:, 0], tokens[:, -1]], -1)))

    def macs(self, tokens: int) -> int:
        return self.linear.weight.numel()


def create_head(spec: PyramidSpec, num_classes: int) -> PyramidHead:
    """The head that `spec` asks for."""
    match spec.head:
        case "norm_mean" | "mean_norm":
            return MeanHead(spec, num_classes, spec.norm, first=spec.head == "norm_mean")
        case "batch_mean":
            return MeanHead(spec, num_classes, "batch", first=True)
        case "conv" | "conv_gelu":
            return ConvHead(spec, num_classes, gelu=spec.head == "conv_gelu")
        case "fused":
            return FusedHead(spec, num_classes)
        case "ends":
            return EndsHead(spec, num_classes)
        case _:
            return DeepHead(spec, num_classes, squared=spec.head == "mlp_squared")
