"""vHeat's heat-conduction operator (arXiv 2405.16555): heat spreads with a diffusivity of its own at each frequency.

With C_n the orthonormal matrix of the discrete cosine transform (type II) of n samples, at frequency (n, m)

    U = C_H u C_Wᵀ
    k = ReLU(W_k e + b_k)
    V = exp(−((n π / H)² + (m π / W)²) k) U
    y = C_Hᵀ V C_W

where e (H, W, D) is a learned embedding of frequencies. The cosines are even about the pixels' outer edges, so that a k
which is the same at all frequencies solves the heat equation with insulated borders: `operators.pde.propagate` with
isotropic diffusion k and `boundary="neumann"`. The learned k is free at each frequency, which makes the operator any
product with numbers in (0, 1] among the cosines.

In the `published` shell this is the whole module `Heat2D`: with copied weights, outputs and all gradients agree to
2e-15 (relative RMS, float64, 7 × 7 and 5 × 9 tokens, with cosines in float64 and our ε of 1e-6 in their
norm, where they have 1e-5). The released models share e among the blocks of a stage; here each mixer has its own, H W D
parameters more.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import InputError
from operators.initialisation import truncated_normal_
from operators.mixer import Core
from operators.precision import full_precision, wide
from operators.registry import register
from operators.runtime.fakes import valueless
from operators.runtime.tensors import ordinary_tensors
from operators.shell.spec import ShellSpec

_README = "MzeroMiko/vHeat README.md"
_TOP1 = "ImageNet-1k top-1 %, 224 px"


def _make_cosines(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    number = torch.arange(length, device=device)
    # Whole numbers of turns are taken off first: the angles are then as exact as they can be.
    turns = (number[:, None] * (2 * number + 1)).remainder(4 * length)
    cosines = (turns.to(torch.float64) * (math.pi / (2 * length))).cos() * math.sqrt(2 / length)
    return torch.cat([cosines[:1] / math.sqrt(2), cosines[1:]]).to(dtype)


@lru_cache(maxsize=32)
def _kept_cosines(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with ordinary_tensors():
        return _make_cosines(length, dtype, device)


def cosine_matrix(length: int, like: Tensor) -> Tensor:
    """Orthonormal matrix (frequency, sample) of the discrete cosine transform of type II."""
    if torch.compiler.is_compiling() or valueless(like):
        return _make_cosines(length, like.dtype, like.device)
    return _kept_cosines(length, like.dtype, like.device)


def _along_both(field: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Sum over k, l of rows_ik columns_jl field_bkld, (B, I, J, D)."""
    batch, height, width, channels = field.shape
    across = rows.expand(batch, -1, -1) @ field.reshape(batch, height, width * channels)
    return (columns @ across.view(batch, height, width, channels)).view(batch, height, width, channels)


@register(
    MixerCard(
        name="vheat",
        family="equations",
        title="Heat-conduction operator (vHeat)",
        source="arXiv 2405.16555; MzeroMiko/vHeat classification/models/vHeat.py at bcc4da7",
        year=2024,
        equation="y = IDCT(exp(−((n π/H)² + (m π/W)²) ReLU(W e_nm + b)) · DCT(u)), e learned per frequency and channel",
        code="MzeroMiko/vHeat at bcc4da7, whole layer, cosines in float64: outputs and gradients within 2e-15 (RMS)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=True,
        fixed_grid=True,
        fp32_core=True,
        backends=("torch",),
        shells={"published": ShellSpec(conv=3, conv_first=True, norm="layer", bias=True)},
        published=(
            Published("vHeat-T", _TOP1, 82.2, _README),
            Published("vHeat-S", _TOP1, 83.6, _README),
            Published("vHeat-B", _TOP1, 83.9, _README),
        ),
    )
)
class VHeat(Core):
    """Heat conduction between insulated borders, with a diffusivity for each frequency and channel.

    At the start k is nearly zero and the operator nearly the identity, as in the released module, whose initialisation
    (deviation 0.02 of e and W_k, zero bias) it has. The embedding asks for no weight decay.

    Raises:
        InputError: the site has no grid.
    """

    no_weight_decay = frozenset({"embedding"})

    def __init__(self, site: Site, *, backend: str = "auto") -> None:
        super().__init__(site, backend=backend)
        if site.grid is None:
            raise InputError("mixer vheat depends on the grid: give grid=(H, W)")
        self.embedding = nn.Parameter(torch.empty(*site.grid, site.width))
        self.to_k = nn.Linear(site.width, site.width)
        truncated_normal_(self.embedding)
        truncated_normal_(self.to_k.weight)
        nn.init.zeros_(self.to_k.bias)

    def diffusivity(self) -> Tensor:
        """The field k >= 0 over the elapsed time, in pixels², (H, W, D) by frequency along rows and columns."""
        return F.relu(self.to_k(self.embedding))

    def decay(self) -> Tensor:
        """The factor in (0, 1] of each frequency, (H, W, D), in at least float32."""
        k = self.diffusivity()
        k = k.to(wide(k.dtype))
        rows, columns = (torch.arange(n, dtype=k.dtype, device=k.device) * (math.pi / n) for n in k.shape[:2])
        return torch.exp(-(rows[:, None] ** 2 + columns**2)[..., None] * k)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Field u (B, H, W, D) after heat has spread."""
        with full_precision(u):
            decay = self.decay()
            rows, columns = (cosine_matrix(n, decay) for n in u.shape[1:3])
            spectrum = _along_both(u.to(decay.dtype), rows, columns)
            return _along_both(spectrum * decay, rows.mT, columns.mT).to(u.dtype)

    def core_cost(self, height: int, width: int) -> Cost:
        """Two products there and two back; every output reads every token."""
        elements = height * width * self.site.width
        return Cost(mixing_macs=2 * (height + width) * elements, state_elements=elements)

    @torch.no_grad()
    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`kernel` (B, D, H, W), the response to a unit at the centre, and `diffusivity` (D, H, W), by frequency."""
        point = torch.zeros_like(u)
        point[:, u.shape[1] // 2, u.shape[2] // 2] = 1
        return {
            "kernel": self(point, x=x, cond=cond).permute(0, 3, 1, 2),
            "diffusivity": self.diffusivity().permute(2, 0, 1),
        }
