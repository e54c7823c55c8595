"""The mixer `s4nd`: a diagonal state space for each axis of the grid, and the outer products of their kernels.

For each channel, with kernels k of a state space along columns of tokens and k' of one along rows (arXiv 2210.06583)

    y = K * u + D u,   K[i, j] = 1/r Σ_q k_q[i] k'_q[j],   k[i] = forward[i] for i ≥ 0, backward[−i − 1] for i < 0

with zeros beyond the border. Lag 0 belongs to the forward kernel: equal kernels are not symmetric, k_backward[l − 1] =
k_forward[l] are. The state spaces are those of `s4d`; the released layer has S4's unless it is told otherwise.

In the `published` shell this is the layer alone, as it stands in place of the depthwise convolutions of ConvNeXt. That
of S4ND-ViT goes on with GELU, a map to 2C channels and GLU, which no switches of the shell say.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import check_choice, check_number
from operators.mixers.spectral.filtering import MadeFilterCore
from operators.mixers.statespace.s4d import DiagonalSystem
from operators.precision import full_precision, wide
from operators.registry import register
from operators.shell.spec import BARE
from operators.spectral.choice import BACKENDS
from operators.spectral.filters import filter_macs

_TOP1 = "ImageNet-1k top-1 %, 224 px"


@register(
    MixerCard(
        name="s4nd",
        family="statespace",
        title="Multi-dimensional state spaces (S4ND)",
        source="arXiv 2210.06583; state-spaces/s4 src/models/sequence/modules/s4nd.py at e757cef",
        year=2022,
        equation="y = K * u + D u, K[i, j] = 1/r Σ_q k_q[i] k'_q[j], kernels of S4D along either axis, both ways",
        code="state-spaces/s4 at e757cef, s4nd.py, diagonal kernels: outputs and gradients within 1e-14 (relative RMS)",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant=None,
        linear=True,
        fp32_core=True,
        backends=BACKENDS,
        shells={"published": BARE},
        published=(
            Published("S4ND-ViT-B", _TOP1, 80.4, "arXiv 2210.06583"),
            Published("S4ND-ConvNeXt-T", _TOP1, 82.2, "arXiv 2210.06583"),
        ),
    )
)
class S4ND(MadeFilterCore):
    """A convolution of the whole grid whose kernel is a sum of outer products of kernels of state spaces.

    Args:
        site: where the core stands.
        backend: `compiled_fft` (CPU), `fft`, `reference` (sums over all pairs of tokens), or `auto`.
        bidirectional: whether each axis is read from its end as well, by a second readout of its state space.
        tensor_rank: outer products r in the kernel.
        state_dim: complex states S per channel and axis; half of the papers' N, which counts conjugates.
        start: the diagonal matrices at the start: `lin`, `inv`, `legs`, `real` or `ptd` (`operators.lti.hippo.start`).
        rule: of the discretisation, `zoh` or `bilinear`.
        n_ssm: channels share so many matrices A for each axis, in turn; None for one each.
        steps: least and greatest step Δ at the start, in tokens; those of the authors' images.
        bandlimit: states are silent whose frequency, as a share of the highest that tokens can show, is not below this;
            None: none is.

    Raises:
        InputError: an unknown start or rule, or a number out of range.
    """

    boundary = "absorbing"

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        bidirectional: bool = True,
        tensor_rank: int = 1,
        state_dim: int = 32,
        start: str = "lin",
        rule: str = "zoh",
        n_ssm: int | None = 1,
        steps: Sequence[float] = (0.1, 1.0),
        bandlimit: float | None = None,
    ) -> None:
        super().__init__(site, backend=backend)
        check_choice("mixer.bidirectional", bidirectional, (True, False))
        check_number("mixer.tensor_rank", tensor_rank, least=1, most=64, integer=True)
        self.bidirectional, self.tensor_rank = bidirectional, tensor_rank
        self.rows, self.columns = (
            DiagonalSystem(
                site.width,
                tensor_rank * (2 if bidirectional else 1),
                state_dim=state_dim,
                start=start,
                rule=rule,
                n_ssm=n_ssm,
                steps=steps,
                bandlimit=bandlimit,
            )
            for _ in range(2)
        )
        self.D = nn.Parameter(torch.randn(site.width))
        self.no_weight_decay = frozenset(
            f"{axis}.{name}" for axis in ("rows", "columns") for name in DiagonalSystem.no_weight_decay
        )

    def lines(self, length: int, system: nn.Module) -> Tensor:
        """The kernels of an axis on twice its length, (r, D, 2L): lags 0 … L − 1, then −L … −1."""
        assert isinstance(system, DiagonalSystem)
        made = system.kernels(length)
        if not self.bidirectional:
            return torch.nn.functional.pad(made, (0, length))
        forward, backward = made.chunk(2)
        return torch.cat([forward, backward.flip(-1)], dim=-1)

    def response(self, height: int, width: int) -> Tensor:
        down = torch.fft.fft(self.lines(height, self.rows)).movedim(-1, 1)[:, :, None]  # (r, P, 1, D)
        along = torch.fft.rfft(self.lines(width, self.columns)).movedim(-1, 1)[:, None]  # (r, 1, Q // 2 + 1, D)
        real = (down.real * along.real - down.imag * along.imag).mean(0)
        imag = (down.real * along.imag + down.imag * along.real).mean(0)
        return torch.stack([real + self.D.to(real.dtype), imag])

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
        """`kernel` (D, 2H − 1, 2W − 1) by offset, with D at offset 0, of `rows` (r, D, 2H − 1) and `columns`."""
        height, width = u.shape[1:3]
        rows, columns = (
            self.lines(length, system).roll(length - 1, -1)[..., : 2 * length - 1]
            for length, system in ((height, self.rows), (width, self.columns))
        )
        kernel = torch.einsum("rdi,rdj->dij", rows, columns) / self.tensor_rank
        kernel[:, height - 1, width - 1] += self.D.to(kernel.dtype)
        return {"kernel": kernel, "rows": rows, "columns": columns}
