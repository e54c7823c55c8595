"""The mixer `ssm2d`: the 2-D SSM layer, a state space that runs along rows and columns at once, from several corners.

    h[i, j] = A1 h[i, j−1] + A2 v[i, j−1] + B1 u[i, j],   v[i, j] = A3 h[i−1, j] + A4 v[i−1, j] + B2 u[i, j]
    y = Σ corners Σ_s (C1 h + C2 v) / √S (+ D u)

with A = σ(·) and B = σ(·) of channels in groups, and a normalisation of the kernel (`operators.lti.roesser`). With
complex states A = σ(·) exp(2πi σ(·)), real and imaginary part of B are σ(·), C is complex, and y the real part.

The kernel is exact on any grid; the released one, of coefficients drawn up by a computer algebra system for squares of
one side, is padded with zeros for larger images. There the groups of all corners are dealt out to channels together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from operators.card import MixerCard, Site
from operators.cost import Cost
from operators.errors import InputError, check_choice, check_number
from operators.lti import roesser
from operators.mixers.spectral.filtering import MadeFilterCore
from operators.precision import full_precision, wide
from operators.registry import register
from operators.shell.spec import ShellSpec
from operators.spectral.choice import BACKENDS
from operators.spectral.filters import filter_macs, respond_centred

FLIPS: dict[int, tuple[tuple[int, ...], ...]] = {1: ((),), 2: ((), (0, 1)), 4: ((), (0,), (1,), (0, 1))}
"""By the number of directions, the axes along which each has its kernel turned round."""


@register(
    MixerCard(
        name="ssm2d",
        family="statespace",
        title="2-D SSM layer",
        source="arXiv 2306.06635; ethanbar11/ssm_2d models/mega/two_d_ssm.py at fbdd3e3",
        year=2023,
        equation="h = (A1 h + A2 v)[i, j−1] + B1 u, v = (A3 h + A4 v)[i−1, j] + B2 u, y = Σ C1 h + C2 v, normalised",
        code="ethanbar11/ssm_2d at fbdd3e3, real and complex: outputs and gradients within 1e-15 (relative RMS)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=True,
        fp32_core=True,
        backends=BACKENDS,
        shells={"published": ShellSpec(gate="none", norm="layer", project=False)},
    )
)
class SSM2D(MadeFilterCore):
    """A convolution of the whole grid with the kernels of 2-D state spaces that start from its corners.

    Args:
        site: where the core stands.
        backend: `compiled_fft` (CPU), `fft`, `reference` (sums over all pairs of tokens), or `auto`.
        directions: corners from which the image is read: 1 (top left), 2 (and bottom right) or 4, with a state space
            each.
        state_dim: states S per channel, each with a part along rows and one along columns.
        n_ssm: channels share so many A and B for each direction, in turn; None for one each.
        complex_states: whether A, B and C are complex.
        residual: whether D u is added.
        share: factor c of the normalisation; 1 for none.

    Raises:
        InputError: a number out of range, or groups that do not divide the width.
    """

    boundary = "absorbing"

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        directions: int = 4,
        state_dim: int = 16,
        n_ssm: int | None = 1,
        complex_states: bool = False,
        residual: bool = False,
        share: float = 0.5,
    ) -> None:
        super().__init__(site, backend=backend)
        check_choice("mixer.directions", directions, FLIPS)
        check_number("mixer.state_dim", state_dim, least=1, most=1024, integer=True)
        groups = site.width if n_ssm is None else n_ssm
        check_number("mixer.n_ssm", groups, least=1, most=site.width, integer=True)
        if site.width % groups:
            raise InputError(f"mixer.n_ssm={groups} must divide the width {site.width}")
        check_choice("mixer.complex_states", complex_states, (True, False))
        check_choice("mixer.residual", residual, (True, False))
        check_number("mixer.share", share, least=1e-3, most=1)
        self.directions, self.state_dim, self.share, self.complex_states = directions, state_dim, share, complex_states
        shape, parts = (directions, groups, state_dim), (2,) if complex_states else ()
        self.A = nn.Parameter(torch.empty(4, *shape))
        self.A_angle = nn.Parameter(torch.empty(4, *shape).uniform_(0.5, 3)) if complex_states else None
        self.B = nn.Parameter(0.2 * torch.randn(2, *shape, *parts))
        self.C = nn.Parameter(torch.randn(2, directions, site.width, state_dim, *parts))
        self.D = nn.Parameter(torch.randn(site.width)) if residual else None
        with torch.no_grad():
            self.A.uniform_(0.5, 3) if complex_states else self.A.normal_(0, 0.2)
        self.no_weight_decay = frozenset({"A", "B", "C"} | ({"A_angle"} if complex_states else set()))

    def maps(self) -> tuple[Tensor, Tensor, Tensor]:
        """A (4, …), B (2, …), both (…, directions, groups, S), and C (2, directions, D, S) over √S."""
        dtype = wide(self.A.dtype)
        A, B = self.A.to(dtype).sigmoid(), self.B.to(dtype).sigmoid()
        C = self.C.to(dtype) / math.sqrt(self.state_dim)
        if self.A_angle is None:
            return A, B, C
        turn = 2 * math.pi * self.A_angle.to(dtype).sigmoid()
        return torch.polar(A, turn), torch.view_as_complex(B), torch.view_as_complex(C)

    def quadrants(self, height: int, width: int) -> Tensor:
        """The kernel of each direction, (directions, H, W, D), at the offsets 0 … H − 1 and 0 … W − 1."""
        A, B, C = self.maps()
        made = roesser.states(A.unbind(), B.unbind(), height, width, self.share)  # (2, H, W, directions, groups, S)
        groups = A.shape[2]
        both = made.permute(3, 4, 1, 2, 0, 5).flatten(4).flatten(2, 3)  # (directions, groups, H W, 2S)
        shared = (
            C.unflatten(2, (-1, groups)).permute(1, 3, 0, 4, 2).flatten(2, 3)
        )  # (directions, groups, 2S, D / groups)
        kernel = both @ shared
        kernel = kernel.real if kernel.is_complex() else kernel
        return kernel.permute(0, 2, 3, 1).flatten(2).unflatten(1, (height, width))

    def kernel(self, height: int, width: int) -> Tensor:
        """The sum of all directions, (2H − 1, 2W − 1, D), by offset between tokens."""
        centred = torch.nn.functional.pad(self.quadrants(height, width), (0, 0, width - 1, 0, height - 1, 0))
        parts = [part.flip(axes) if axes else part for part, axes in zip(centred, FLIPS[self.directions], strict=True)]
        return torch.stack(parts).sum(0)

    def response(self, height: int, width: int) -> Tensor:
        made = respond_centred(self.kernel(height, width), height, width)
        return made if self.D is None else torch.stack([made[0] + self.D.to(made.dtype), made[1]])

    def made_of(self) -> list[Tensor]:
        return list(self.parameters())

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        with full_precision(u):
            return self.apply_filter(u.to(wide(u.dtype)), self.served_response(u)).to(u.dtype)

    def core_cost(self, height: int, width: int) -> Cost:
        """A transform there and one back on four times the tokens, and a product; the field itself is the state."""
        return Cost(
            mixing_macs=round(self.site.width * filter_macs(height, width, self.boundary)),
            state_elements=height * width * self.site.width,
        )

    @torch.no_grad()
    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`kernel` (D, 2H − 1, 2W − 1) by offset, without D, of `quadrants` (directions, D, H, W)."""
        height, width = u.shape[1:3]
        kernel, quadrants = self.kernel(height, width), self.quadrants(height, width)
        return {"kernel": kernel.movedim(-1, 0), "quadrants": quadrants.movedim(-1, 1)}
