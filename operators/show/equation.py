"""What the equations of a layer do to a pulse and to a field, in tokens.

A layer's equations run over a time τ, the unit in which its coefficients are given. Of first order, with diffusion K,
velocity v and reaction r, a pulse becomes a Gaussian spot: its centre moves by v τ, its standard deviations along the
eigenvectors of K are √(2 λ τ) for the eigenvalues λ, and its mass is exp(r τ).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.mixers.equations.pde_ssm import PdeSsm
from operators.pde import propagate
from operators.pde.symbols import Coefficients
from operators.show.layers import State

QUANTILES = (0.3, 0.75, 0.95)
"""Of the states in order of their lengths, those that a film shows."""


@dataclass(frozen=True)
class Spots:
    """What a pulse becomes after a layer's time in each of its M states; lengths in tokens, vectors as (row, column).

    Attributes:
        diffusion: K τ (M, 2, 2), in tokens².
        shifts: v τ (M, 2).
        decays: -r τ (M,).
        weights: (M,) with which the states enter the output.
        boundary, forcing: of the equations, see `operators.pde.propagate`.
    """

    diffusion: Tensor
    shifts: Tensor
    decays: Tensor
    weights: Tensor
    boundary: str | Sequence[str]
    forcing: str

    @property
    def axes(self) -> tuple[Tensor, Tensor]:
        """Semi-axes √(2 λ τ) of the ellipses (M, 2), longest first, and their directions (M, axis, 2)."""
        values, vectors = torch.linalg.eigh(self.diffusion)
        return (2 * values.clamp_min(0)).sqrt().flip(-1), vectors.mT.flip(-2)

    @property
    def lengths(self) -> Tensor:
        """Root mean square of both semi-axes (M,): the square root of the trace of K τ."""
        return self.diffusion.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt()

    @property
    def speeds(self) -> Tensor:
        """Distances |v| τ (M,) that pulses move."""
        return self.shifts.norm(dim=-1)

    def chosen(self, shares: Sequence[float]) -> Tensor:
        """Numbers of the states at these shares of their order by length, or by speed where nothing spreads."""
        order = (self.lengths if bool(self.lengths.any()) else self.speeds).argsort()
        places = torch.tensor([share * (len(order) - 1) for share in shares]).round().long()
        return order[places.unique()]


def undrawn(state: State) -> str | None:
    """Why a layer has no spots: None if it has, and for layers without equations an empty sentence."""
    core = state.mixer.core
    if not isinstance(core, PdeSsm):
        return ""
    if core.agreed.call.order != 1:
        return "Its equations are of second order in time: pulses become waves, not spots."
    if core.agreed.nonlinearity != "none":
        return "Its reaction is not linear: what a pulse becomes depends on its height."
    return None if core.call.spatial else "None of its terms is spatial: tokens do not meet."


def spots(state: State) -> Spots:
    """The spots of a layer with equations, for the image among whose tokens it stands; see `undrawn`."""
    core = state.mixer.core
    assert isinstance(core, PdeSsm)
    terms = ("diffusion", "velocity", "reaction")
    named = {key: state.named[key].double().cpu() for key in terms if key in state.named}
    # Coefficients are (D, S, …), or (1, groups, S, …) where the image or a vector decides.
    flat = {key: value.reshape(-1, value.shape[-1]) for key, value in named.items()}
    some = next(iter(flat.values()))
    zero = some.new_zeros(len(some))
    kyy, kxx, *rest = flat["diffusion"].unbind(-1) if "diffusion" in flat else (zero, zero)
    vy, vx = flat["velocity"].unbind(-1) if "velocity" in flat else (zero, zero)
    given = Coefficients(kyy=kyy, kxx=kxx, kxy=rest[0] if rest else zero, vy=vy, vx=vx)
    tokens = given.in_pixels(state.grid, core.units)
    entries = [getattr(tokens, name) for name in ("kyy", "kxy", "kxy", "kxx")]
    weight = core.readout.detach().double().cpu().abs().unflatten(0, (core.groups, -1)).mean(1).flatten()
    return Spots(
        diffusion=torch.stack(entries, -1).unflatten(-1, (2, 2)),
        shifts=torch.stack([getattr(tokens, name) for name in ("vy", "vx")], -1),
        decays=-flat["reaction"][:, 0] if "reaction" in flat else zero,
        weights=weight,
        boundary=core.call.boundary,
        forcing=core.call.forcing,
    )


def film(made: Spots, which: Tensor, field: Tensor, times: Sequence[float]) -> Tensor:
    """What the equations of the states `which` make of a field (H, W) at `times` in units of τ, (T, states, H, W).

    Raises:
        InputError: see `operators.pde.propagate`.
    """
    k = made.diffusion[which].to(field)
    straight = not bool(k[:, 0, 1].any())
    return torch.stack(
        [
            propagate(
                field.expand(len(which), *field.shape).contiguous(),
                diffusion=k.diagonal(dim1=-2, dim2=-1) if straight else k,
                velocity=made.shifts[which].to(field),
                reaction=-made.decays[which].to(field),
                time=time,
                boundary=made.boundary,
                forcing=made.forcing,
            )
            for time in times
        ]
    )


def example_field(height: int, width: int) -> Tensor:
    """A square above and left of the middle, a single token below and right of it, (H, W)."""
    field = torch.zeros(height, width)
    side = max(1, min(height, width) // 4)
    top, left = height // 4, width // 4
    field[top : top + side, left : left + side] = 1
    field[3 * height // 4, 3 * width // 4] = 1
    return field
