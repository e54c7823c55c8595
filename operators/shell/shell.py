"""The shell: everything around a core that is not token mixing (the value path).

    u, z = W_in x          z only with a gate
    u    = SiLU(DW_k u)    only with conv = k
    y    = norm(core(u))
    y    = y * SiLU(z)     only with a gate; y * z with a linear one
    out  = W_out y

One shell for all cores makes a comparison one of cores; a core that mixes nothing then mixes nothing.
"""

from __future__ import annotations

from dataclasses import asdict

import torch.nn.functional as F
from torch import Tensor, nn

from operators.cost import Cost
from operators.errors import InputError
from operators.initialisation import linear_init
from operators.shell.gated_norm import gated_norm
from operators.shell.spec import ShellSpec

EPS = 1e-6


class Shell(nn.Module):
    """The value path around a core; see the module's docstring for the equations."""

    def __init__(self, dim: int, spec: ShellSpec, axes: int = 2) -> None:
        super().__init__()
        self.spec = spec
        self.dim = dim
        self.width = round(dim * spec.expand)
        gated = spec.gate != "none"
        if spec.project:
            self.in_proj = nn.Linear(dim, self.width * (2 if gated else 1), bias=spec.bias)
            self.out_proj = nn.Linear(self.width, dim, bias=spec.bias)
            for linear in (self.in_proj, self.out_proj):
                linear_init(linear)
        if spec.conv:
            convolution = nn.Conv2d if axes == 2 else nn.Conv3d
            self.conv = convolution(
                self.width, self.width, spec.conv, padding="same", groups=self.width, bias=spec.conv_bias
            )
        norms = {"rms": nn.RMSNorm, "layer": nn.LayerNorm, "none": nn.Identity}
        self.norm = norms[spec.norm](self.width) if spec.norm == "none" else norms[spec.norm](self.width, eps=EPS)

    def enter(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Value field u (B, H, W, D) and gate z (B, H, W, D) or None, from x (B, H, W, C)."""
        u, z = x, None
        if self.spec.project:
            u = self.in_proj(x)
            if self.spec.gate != "none":
                u, z = u.chunk(2, dim=-1)
        if self.spec.conv:
            u = F.silu(self.conv(u.movedim(-1, 1)).movedim(1, -1))
        return u, z

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
        return u, F.linear(x, weight[width:], None if bias is None else bias[width:])

    def leave(self, y: Tensor, z: Tensor | None) -> Tensor:
        """Mixer output (B, H, W, C) from the core's output y (B, H, W, D) and the gate z."""
        if isinstance(self.norm, nn.RMSNorm | nn.LayerNorm):
            # Under autocast a core may hand over half precision, which fused norms refuse with float32 weights.
            y = y.to(self.norm.weight.dtype)
            z = None if z is None else z.to(y.dtype)
        if isinstance(self.norm, nn.RMSNorm) and z is not None and self.spec.gate == "silu":
            y = gated_norm(y, z, self.norm.weight, EPS)
        else:
            y = self.norm(y)
            if z is not None:
                y = y * (F.silu(z) if self.spec.gate == "silu" else z)
        return self.out_proj(y) if self.spec.project else y

    def cost(self, tokens: int, context: int | None = None) -> Cost:
        """Cost of the shell alone for so many tokens, and for a context of so many where there is one."""
        projection = 0
        if self.spec.project:
            gate_and_out = self.in_proj.weight.numel() + self.out_proj.weight.numel() - self.dim * self.width
            values = self.dim * self.width * (tokens if context is None else context)
            projection = tokens * gate_and_out + values
        return Cost(
            projection_macs=projection,
            mixing_macs=self.spec.conv and self.conv.weight[0].numel() * tokens * self.width,
            parameters=sum(parameter.numel() for parameter in self.parameters()),
        )

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in asdict(self.spec).items())
