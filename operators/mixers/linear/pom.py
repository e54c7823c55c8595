"""PoM, the Polynomial Mixer (arXiv 2604.06129; the authors' module is davidpicard/pom `pom/pom.py`).

From the value field u, which the shell projects, and the mixer's input x, for tokens i, j and each channel

    f_j = clamp(leakyReLU_0.01(u_j), −0.1, 6)
    P_j = α_1 f_j + α_2 f_j² + … + α_d f_j^d
    s_i = hardsigmoid(W_s x_i + b_s)
    y_i = s_i · (1/N) Σ_j P_j

All tokens read one and the same vector, each through its own gate: cost grows as N, and the state is one number per
channel.

In the `published` shell this is the released module at commit bacfc6e, without its masks and channel groups. With
copied weights, outputs and all gradients agree to 5e-16 (relative RMS, float64): degrees 1 to 4, one
gate per channel or 4 heads, and 2-D RoPE, brought to one base and one order of channels, with one gate per channel.
With heads, the released RoPE turns the few gates at frequencies of their own; here they are spread over their channels
first, which keeps the identity that RoPE rests on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Site
from operators.cost import Cost
from operators.errors import InputError, check_choice, check_number
from operators.initialisation import linear_init
from operators.mixer import Core
from operators.mixers.heads import check_heads, rope_angles, rotate
from operators.precision import wide
from operators.registry import register
from operators.runtime.differentiation import transformed
from operators.shell.spec import ShellSpec

SLOPE = 0.01
START = 1e-3


@register(
    MixerCard(
        name="pom",
        family="linear",
        title="Polynomial mixer (PoM)",
        source="arXiv 2604.06129; davidpicard/pom pom/pom.py at bacfc6e",
        year=2026,
        equation="y_i = hardsigmoid(W x_i + b) · mean_j Σ_p α_p f_j^p, f = clamp(leakyReLU(u), −0.1, 6)",
        code="davidpicard/pom at bacfc6e: outputs and gradients within 5e-16 (relative RMS, float64)",
        position_aware=False,
        permutation_equivariant=True,
        translation_equivariant="circular",
        linear=False,
        axes=(2, 3),
        reads_context=True,
        fp32_core=True,
        backends=("torch",),
        shells={"published": ShellSpec(expand=2, gate="none", norm="none")},
    )
)
class PoM(Core):
    """Polynomial mixer: polynomials of the field u, averaged over all tokens and read through a gate of x.

    The coefficients α start as normal numbers cut at ±0.001, hence mostly at ±0.001: the mixer starts near zero. They
    ask for no weight decay: each is a channel's gain, like a norm's, and decay would pull it back to where it started.

    Args:
        site: where the core stands.
        backend: `torch` or `auto`.
        degree: highest power d.
        clamp: least and greatest value of f; None for no bounds.
        heads: gates per token, each for D / heads neighbouring channels; None for one per channel (which the released
            module calls 1).
        rope: rotary positions of P_j and s_i over all D channels, as those of `attention` (the released module's
            base is 10 000 instead of 100). y then holds the relative position of i and j where its consumer
            gives both channels of a rotated pair the same weight, as `W_out` may learn to.

    Raises:
        InputError: an impossible degree, clamp or number of heads; a width that cannot be rotated.
    """

    no_weight_decay = frozenset({"coefficients"})

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        degree: int = 2,
        clamp: Sequence[float] | None = (-0.1, 6.0),
        heads: int | None = None,
        rope: bool = False,
    ) -> None:
        super().__init__(site, backend=backend)
        check_number("mixer.degree", degree, least=1, most=16, integer=True)
        check_choice("mixer.rope", rope, (True, False))
        if heads is not None:
            check_heads(heads, site.width)
        if rope and site.width % (2 * site.axes):
            raise InputError(f"mixer.rope=True needs a width divisible by {2 * site.axes}, not {site.width}")
        self.clamp = _check_clamp(clamp)
        self.gates = site.width if heads is None else heads
        self.rope = rope
        self.gate = nn.Linear(site.dim, self.gates)
        linear_init(self.gate)
        self.coefficients = nn.Parameter(torch.randn(site.width, degree).clamp(-START, START))

    @property
    def permutation_equivariant(self) -> bool:
        """Not with rotary positions."""
        return not self.rope

    def polynomials(self, u: Tensor) -> Tensor:
        """P of the paper, in the shape of u (..., D) and in at least float32."""
        f = F.leaky_relu(u.to(wide(u.dtype)), SLOPE)
        if self.clamp is not None:
            f = f.clamp(*self.clamp)
        *lower, factor = self.coefficients.to(f.dtype).unbind(1)
        for coefficient in reversed(lower):
            factor = coefficient + f * factor  # Horner: α_1 f + α_2 f² + α_3 f³ = f (α_1 + f (α_2 + f α_3))
        return f * factor

    def pooled(self, u: Tensor) -> Tensor:
        """Mean of the polynomials over all tokens, (B, D), from u (B, H, W, D), in at least float32."""
        return self._rotated(self.polynomials(u)).flatten(1, -2).mean(1)

    def selection(self, x: Tensor) -> Tensor:
        """The gates s in [0, 1], (B, H, W, heads), from x (B, H, W, C)."""
        logits: Tensor = self.gate(x)
        logits = logits.to(wide(logits.dtype))
        if logits.dtype == torch.float64 or transformed():
            # Torch's own has 1/6 in float32 in its gradient, whatever the type, and no second derivative.
            return F.relu6(logits + 3) / 6
        return F.hardsigmoid(logits)

    def _rotated(self, field: Tensor) -> Tensor:
        if not self.rope:
            return field
        grid, width = field.shape[1:-1], self.site.width
        angles = rope_angles(*grid, head_width=width, device=field.device, dtype=field.dtype)
        return rotate(field.flatten(1, -2)[:, :, None], angles).reshape(field.shape)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        return self._give(self._rotated(self._gates(x)), self.pooled(u)).to(u.dtype)

    def read(
        self, u: Tensor, *, x: Tensor, context: Tensor, mask: Tensor | None = None, cond: Tensor | None = None
    ) -> Tensor:
        """The mean polynomial of the context's tokens, read through the gates of x, (B, H, W, D).

        Raises:
            InputError: rotary positions, which tokens of a context have none of.
        """
        if self.rope:
            raise InputError(
                "mixer.rope=True turns tokens by their place on the grid, and those of a context have none"
            )
        polynomials = self.polynomials(u)
        if mask is None:
            mean = polynomials.mean(1)
        else:
            mean = polynomials.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True)
        return self._give(self._gates(x), mean).to(u.dtype)

    def _gates(self, x: Tensor) -> Tensor:
        gates = self.selection(x)[..., None]
        return gates.expand(*gates.shape[:-1], self.site.width // self.gates).flatten(-2)

    @staticmethod
    def _give(gates: Tensor, mean: Tensor) -> Tensor:
        return (gates.flatten(1, -2) * mean[:, None]).reshape(gates.shape)

    def core_cost(self, height: int, width: int) -> Cost:
        """The gate's map: N C per gate; the mean is the state.

        The 2 d N D operations of polynomial and mean are element-wise work and a reduction, which the zoo never counts.
        """
        return Cost(projection_macs=height * width * self.gate.weight.numel(), state_elements=self.site.width)

    def read_cost(self, height: int, width: int, tokens: int) -> Cost:
        """As `core_cost`: the context's tokens are averaged."""
        return self.core_cost(height, width)

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`context` (B, D), what all tokens read, and `gate` (B, heads, H, W), through which each reads it."""
        return {"context": self.pooled(u), "gate": self.selection(x).movedim(-1, 1)}


def _check_clamp(clamp: Any) -> tuple[float, float] | None:
    if clamp is None:
        return None
    if isinstance(clamp, str) or not isinstance(clamp, Sequence) or len(clamp) != 2:
        raise InputError(f"mixer.clamp={clamp!r} must be two numbers [low, high], low < high, or null")
    low, high = clamp
    check_number("mixer.clamp[0]", low)
    check_number("mixer.clamp[1]", high)
    if low >= high:
        raise InputError(f"mixer.clamp={list(clamp)!r} must rise: low < high")
    return low, high
