"""The shell: everything around a core that is not token mixing (the value path).

    u, z = W_in x          z only with a gate; W_in DW_k x with conv_first
    z    = W_z z           only with gate_rank, the channels of W_in's z
    u    = SiLU(DW_k u)    only with conv = k
    y    = norm(core(u))   of each head by itself with norm_heads
    y    = y * SiLU(z)     only with a gate; y * GELU(z), y * σ(z) or y * z with another one
    out  = W_out y

With norm_after_gate, y is first multiplied and then normalised.

One shell for all cores makes a comparison one of cores; a core that mixes nothing then mixes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.cost import Cost
from operators.errors import InputError
from operators.initialisation import linear_init
from operators.shell.gated_norm import gated_norm
from operators.shell.spec import ShellSpec

EPS = 1e-6
OPENINGS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
    "linear": lambda z: z,
}
"""What each gate makes of z."""
NORM_MODULES: Mapping[str, Callable[[int], nn.Module]] = {
    "rms": lambda width: nn.RMSNorm(width, eps=EPS),
    "layer": lambda width: nn.LayerNorm(width, eps=EPS),
    "none": nn.Identity,
}


class Shell(nn.Module):
    """The value path around a core; see the module's docstring for the equations."""

    def __init__(self, dim: int, spec: ShellSpec, axes: int = 2) -> None:
        super().__init__()
        self.spec = spec
        self.dim = dim
        self.width = max(1, int(dim * spec.expand)) if spec.round_down else round(dim * spec.expand)
        self.heads = 1
        gated = spec.gate != "none"
        if spec.project:
            gate_width = (spec.gate_rank or self.width) if gated else 0
            self.in_proj = nn.Linear(dim, self.width + gate_width, bias=spec.bias)
            self.out_proj = nn.Linear(self.width, dim, bias=spec.bias)
            for linear in (self.in_proj, self.out_proj):
                linear_init(linear)
        if spec.conv:
            convolution = nn.Conv2d if axes == 2 else nn.Conv3d
            channels = dim if spec.conv_first else self.width
            self.conv = convolution(channels, channels, spec.conv, padding="same", groups=channels, bias=spec.conv_bias)
        self.norm = NORM_MODULES[spec.norm](self.width)
        self.gate_proj: nn.Linear | None = None
        if gated and spec.gate_rank:
            self.gate_proj = nn.Linear(spec.gate_rank, self.width, bias=spec.bias)
            linear_init(self.gate_proj)

    def normalise_heads(self, heads: int) -> None:
        """Normalise each of so many heads by itself, with one weight for all; for a shell that has just been made."""
        self.heads = heads
        self.norm = NORM_MODULES[self.spec.norm](self.width // heads)

    def enter(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Value field u (B, H, W, D) and gate z (B, H, W, D) or None, from x (B, H, W, C)."""
        u, z = x, None
        if self.spec.conv and self.spec.conv_first:
            u = self._convolved(x)
        if self.spec.project:
            u = self.in_proj(u)
            if self.spec.gate != "none":
                u, z = u.split([self.width, u.shape[-1] - self.width], dim=-1)
        if self.spec.conv and not self.spec.conv_first:
            u = F.silu(self._convolved(u))
        return u, self._full_rank(z)

    def _convolved(self, field: Tensor) -> Tensor:
        return self.conv(field.movedim(-1, 1)).movedim(1, -1)

    def _full_rank(self, z: Tensor | None) -> Tensor | None:
        return z if z is None or self.gate_proj is None else self.gate_proj(z)

    def enter_context(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor | None]:
        """Values u (B, M, D) from context (B, M, C), and the gate z (B, H, W, D) or None from x (B, H, W, C).

        Raises:
            InputError: the shell has a convolution, which needs a grid.
        """
        if self.spec.conv:
            raise InputError(
                f"shell.conv={self.spec.conv} needs a grid, and the tokens of a context are on none: use 0"
            )
        if not self.spec.project:
            return context, None
        weight, bias, width = self.in_proj.weight, self.in_proj.bias, self.width
        u = F.linear(context, weight[:width], None if bias is None else bias[:width])
        if self.spec.gate == "none":
            return u, None
        return u, self._full_rank(F.linear(x, weight[width:], None if bias is None else bias[width:]))

    def leave(self, y: Tensor, z: Tensor | None) -> Tensor:
        """Mixer output (B, H, W, C) from the core's output y (B, H, W, D) and the gate z."""
        if isinstance(self.norm, nn.RMSNorm | nn.LayerNorm):
            # Under autocast a core may hand over half precision, which fused norms refuse with float32 weights.
            y = y.to(self.norm.weight.dtype)
            z = None if z is None else z.to(y.dtype)
        if self.heads > 1:
            y = y.unflatten(-1, (self.heads, -1))
            z = None if z is None else z.unflatten(-1, (self.heads, -1))
        y = self._normalised_and_gated(y, z)
        if self.heads > 1:
            y = y.flatten(-2)
        return self.out_proj(y) if self.spec.project else y

    def _normalised_and_gated(self, y: Tensor, z: Tensor | None) -> Tensor:
        if z is None:
            return self.norm(y)
        if self.spec.norm_after_gate:
            return self.norm(y * OPENINGS[self.spec.gate](z))
        if isinstance(self.norm, nn.RMSNorm) and self.spec.gate == "silu":
            return gated_norm(y, z, self.norm.weight, EPS)
        return self.norm(y) * OPENINGS[self.spec.gate](z)

    def cost(self, tokens: int, context: int | None = None) -> Cost:
        """Cost of the shell alone for so many tokens, and for a context of so many where there is one."""
        projection = 0
        if self.spec.project:
            gate_and_out = self.in_proj.weight.numel() + self.out_proj.weight.numel() - self.dim * self.width
            gate_and_out += 0 if self.gate_proj is None else self.gate_proj.weight.numel()
            values = self.dim * self.width * (tokens if context is None else context)
            projection = tokens * gate_and_out + values
        return Cost(
            projection_macs=projection,
            mixing_macs=self.spec.conv and self.conv.weight.numel() * tokens,
            parameters=sum(parameter.numel() for parameter in self.parameters()),
        )

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in asdict(self.spec).items())
