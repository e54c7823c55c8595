"""ViT³, test-time training with one inner step (arXiv 2512.01643): a small model learns v from k, then maps q.

The field's D channels are `heads` heads of d channels, each with a gated linear model, and d more with a depthwise
convolution K. For the N tokens of an image, with s = 1/3,

    f(k) = (k W_1) ⊙ SiLU(k W_2),   L = −(s/N) Σ_j v_j · f(k_j)          per head
    W ← W − η g / (‖g‖ + 1),  g = ∂L/∂W,  ‖·‖ of each column             one step, both W
    y_i = f(q_i) with the new W
    K ← K − η g / (‖g‖ + 1),  g = ∂L/∂K,  L = −(s/N) Σ v · (K ⋆ k),  ‖·‖ of each channel's kernel
    y = K ⋆ q with the new K

The gradients are closed formulas, so that the step is three batched products. Without its convolution the mixer does
not know where tokens are. Cost is linear in the number of tokens, and four copies of an image change nothing.

In the `published` shell this is the released `TTT` of `vittt/models/ttt_block.py` at commit e347758 of
LeapLabTHU/ViTTT. With copied weights, outputs and all gradients agree to 2e-15 (relative RMS, float64, 6 and 12 heads,
odd and oblong grids).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import InputError, check_choice, check_number
from operators.initialisation import linear_init, truncated_normal_
from operators.mixer import Core
from operators.mixers.heads import HEAD_WIDTH, check_heads, default_heads, divisors
from operators.precision import wide
from operators.registry import register
from operators.shell.spec import ShellSpec

SCALE = 9**-0.5
"""Factor s of the inner losses: the kernel's number of taps to the power −1/2 (`ttt_block.py`, line 48)."""
SIDE = 3
"""Side of the convolution's kernels."""

_VITTT = "LeapLabTHU/ViTTT vittt/README.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


@register(
    MixerCard(
        name="ttt",
        family="delta",
        title="Test-time training, one inner step (ViT³)",
        source="arXiv 2512.01643; LeapLabTHU/ViTTT vittt/models/ttt_block.py at e347758",
        year=2025,
        equation="y = f_W(q), W ← W − η ∂L/∂W clipped, L = −(s/N) Σ v · f_W(k), f = gated linear and 3 × 3 convolution",
        code="LeapLabTHU/ViTTT at e347758: outputs and gradients within 2e-15 (relative RMS, float64)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=False,
        backends=("torch",),
        shells={"published": ShellSpec(expand=7 / 6, gate="none", norm="none", bias=True)},
        published=(
            Published("ViT³-T", _TOP1, 76.5, _VITTT),
            Published("ViT³-S", _TOP1, 81.6, _VITTT),
            Published("ViT³-B", _TOP1, 82.6, _VITTT),
        ),
    )
)
class TTT(Core):
    """Gated linear models and a convolution that make one step of gradient descent on the image, then map queries.

    Args:
        site: where the core stands.
        heads: gated linear models; None for as many as make heads about 64 wide. With the convolution, which takes a
            head's share of the channels, heads + 1 must divide D. The released models have 6 (T, S) and 12 (B), so that
            D is 7/6 (the shell `published`) and 13/12 of the model's width.
        convolution: whether the last D / (heads + 1) channels go through the convolution.
        rate: η of the inner step; 0 leaves a map of each token alone, and a fixed convolution.

    Raises:
        InputError: a number of heads that does not fit the width, or a negative rate.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        heads: int | None = None,
        convolution: bool = True,
        rate: float = 1.0,
    ) -> None:
        super().__init__(site, backend=backend)
        check_choice("mixer.convolution", convolution, (True, False))
        check_number("mixer.rate", rate, least=0)
        self.heads = _check_parts(heads, site.width, convolution) - int(convolution)
        self.convolution, self.rate = convolution, rate
        self.head_width = site.width // (self.heads + int(convolution))
        self.qk = nn.Linear(site.dim, 2 * site.width)
        linear_init(self.qk)
        self.weight = nn.Parameter(torch.empty(self.heads, self.head_width, 2 * self.head_width))
        truncated_normal_(self.weight)
        if convolution:
            self.kernel = nn.Parameter(torch.empty(self.head_width, SIDE**2))
            truncated_normal_(self.kernel)

    @property
    def permutation_equivariant(self) -> bool:
        """Only without the convolution."""
        return not self.convolution

    def weights(self, k: Tensor, v: Tensor) -> Tensor:
        """W_1 and W_2 after the step, (B, heads, d, 2 d), from k and v (B, heads, N, d); at least in float32."""
        weight = self.weight.to(wide(k.dtype))
        return weight - self.rate * _clipped(inner_gradient(k, v, self.weight), dim=-2)

    def kernels(self, patches: Tensor, v: Tensor) -> Tensor:
        """The kernels after the step, (B, d, 9), from k's patches (B, d, 9, N) and v (B, N, d); at least in float32."""
        dtype = wide(patches.dtype)
        error = v.mT.to(dtype) * (-SCALE / v.shape[1])
        gradient = (patches @ error[..., None].to(patches.dtype))[..., 0].to(dtype)
        return self.kernel.to(dtype) - self.rate * _clipped(gradient, dim=-1)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D)."""
        height, width = u.shape[1:3]
        (q, k, v), local = self._split(u, x)
        a, b = (q @ self.weights(k, v).to(q.dtype)).chunk(2, dim=-1)
        y = (a * F.silu(b)).transpose(1, 2).flatten(2)
        if local is not None:
            q, k, v = local
            keys, queries = _patches(torch.cat([k, q], -1), height, width).chunk(2, dim=1)
            convolved = self.kernels(keys, v)[:, :, None].to(queries.dtype) @ queries
            y = torch.cat([y, convolved[:, :, 0].mT.to(y.dtype)], -1)
        return y.view(u.shape)

    def _split(self, u: Tensor, x: Tensor) -> tuple[list[Tensor], list[Tensor] | None]:
        """Queries, keys and values of the heads, (B, heads, N, d), and of the convolution, (B, N, d)."""
        qk = self.qk(x).flatten(1, 2)
        streams = [*qk.chunk(2, dim=-1), u.flatten(1, 2).to(qk.dtype)]
        inner = self.heads * self.head_width
        heads = [t[..., :inner].unflatten(-1, (self.heads, self.head_width)).transpose(1, 2) for t in streams]
        return heads, [t[..., inner:] for t in streams] if self.convolution else None

    def core_cost(self, height: int, width: int) -> Cost:
        """Maps q and k: 2NCD. Three products of 2 d columns for each head, two with nine taps for the convolution.

        The state is what the step adds to the weights.
        """
        tokens = height * width
        weights = self.weight.numel() + (self.kernel.numel() if self.convolution else 0)
        kernels = self.kernel.numel() if self.convolution else 0
        return Cost(
            projection_macs=tokens * self.qk.weight.numel(),
            mixing_macs=tokens * (3 * self.weight.numel() + 2 * kernels),
            state_elements=weights,
        )

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`weights` (B, heads, d, 2 d) after the step and, with the convolution, its `kernel` (B, d, 3, 3)."""
        (_, k, v), local = self._split(u, x)
        shown = {"weights": self.weights(k, v)}
        if local is not None:
            _, k, v = local
            shown["kernel"] = self.kernels(_patches(k, *u.shape[1:3]), v).unflatten(-1, (SIDE, SIDE))
        return shown


def inner_gradient(k: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    """∂L/∂W of L = −(s/N) Σ v · (k W_1) ⊙ SiLU(k W_2), (B, heads, d, 2 d), for W_1 and W_2 side by side.

    Takes k and v (B, heads, N, d); computes at least in float32, the products under autocast in its type.
    """
    dtype = wide(k.dtype)
    z1, z2 = (k @ weight.to(k.dtype)).to(dtype).chunk(2, dim=-1)
    error = v.to(dtype) * (-SCALE / k.shape[-2])
    gate = torch.sigmoid(z2)
    slope = gate * (1 + z2 * (1 - gate))  # of SiLU
    return (k.mT @ torch.cat([error * z2 * gate, error * z1 * slope], -1).to(k.dtype)).to(dtype)


def _clipped(gradient: Tensor, dim: int) -> Tensor:
    """The gradient g as g / (‖g‖ + 1), norms along `dim`: never longer than 1."""
    return gradient / (torch.linalg.vector_norm(gradient, dim=dim, keepdim=True) + 1)


def _patches(field: Tensor, height: int, width: int) -> Tensor:
    """The 3 × 3 neighbourhoods of field (B, N, d), zeros beyond the border, as (B, d, 9, N)."""
    grid = field.mT.unflatten(-1, (height, width))
    return F.unfold(grid, SIDE, padding=SIDE // 2).unflatten(1, (-1, SIDE**2))


def _check_parts(heads: int | None, width: int, convolution: bool) -> int:
    """Into how many parts the channels fall: the heads, and the convolution."""
    if not convolution:
        heads = default_heads(width) if heads is None else heads
        check_heads(heads, width)
        return heads
    possible = [parts for parts in divisors(width) if parts > 1]
    if heads is None:
        if not possible:
            raise InputError(f"mixer.convolution needs a width of at least 2 to share with a head, not {width}")
        return min(possible, key=lambda parts: abs(parts - width / HEAD_WIDTH))
    check_number("mixer.heads", heads, least=1, integer=True)
    if heads + 1 not in possible:
        near = sorted(possible, key=lambda parts: abs(parts - heads - 1))[:2]
        listed = " and ".join(str(parts - 1) for parts in sorted(near)) or "none"
        raise InputError(
            f"mixer.heads={heads}: with the convolution, heads + 1 must divide the width {width}; nearest: {listed}"
        )
    return heads + 1
