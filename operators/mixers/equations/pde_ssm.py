"""The mixer `pde_ssm`: every channel is carried, spread and damped by a learned equation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from operators.card import MixerCard, Site
from operators.cost import Cost, complex_product_macs, fft_macs
from operators.errors import InputError
from operators.initialisation import linear_init
from operators.mixer import Core
from operators.mixers.equations.coefficients import draw, physical, reaction_rate, term_of
from operators.mixers.equations.options import METHOD, TERMS, check
from operators.pde.boundary import extended
from operators.pde.choice import NAMED, REFUSALS, Call, choose
from operators.pde.flows.reaction import react, strang
from operators.pde.routes import ROUTES, Prepared
from operators.pde.symbols import Coefficients
from operators.precision import full_precision, wide
from operators.registry import register
from operators.runtime.differentiation import differentiated
from operators.runtime.kept import Kept, keep, may_keep
from operators.shell.spec import ShellSpec

MOST_CHANGE = 3.0
"""Largest change of a raw coefficient by conditioning, so that no input, however large, makes it overflow."""
DEFAULT_SIDE = 16


@register(
    MixerCard(
        name="pde_ssm",
        family="equations",
        title="PDE-SSM",
        source="arXiv 2603.13663 (abstract; block details are not public and are specified here)",
        year=2026,
        equation="du/dt = div(K grad u) - v.grad u + r u, u(0) = B x;  y = C u(1) + D x",
        code="none is public; compared with the definition, finite differences and closed-form solutions in float64",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant="circular",
        linear=True,
        axes=(2, 3),
        fp32_core=True,
        state_param="state",
        backends=NAMED,
        shells={"project": ShellSpec(gate="silu", conv=3, norm="layer")},
        check=check,
    )
)
class PdeSsm(Core):
    """A convection-diffusion-reaction equation per state channel, over one unit of time.

    Each channel d of the value field u has `state` states, each with its own equation. Its output is the weighted sum
    of their solutions and of u itself, so that its kernel is a sum of moving, spreading spots:

        y_d = sum_s w_ds u_ds(1) + D_d u_d

    Coefficients are kept in image units (lengths over the side of an image of area 1), whatever `units` is; the latter
    says whether they keep their size in images or in pixels (of the nominal grid) when the resolution changes. Along
    the frames of a video, K and v have a third axis, the first; its unit is the length of the video.

    Args:
        site: where the core stands. Its nominal grid (16 along each axis without one) scales the initialisation.
        backend: another word for `method`, the one that every mixer has: where both are set, they must be the same.
        terms: any subset of `convection`, `diffusion`, `reaction`. Without spatial terms nothing mixes.
        boundary: `periodic`, `neumann`, `dirichlet` or `absorbing` (see `operators.pde.propagate`); or two of them, of
            the row axis and of the column axis; for videos three, that of the frame axis first.
        coefficients: `learned`, `fixed` (as initialised), or a mapping from term to one of these (default learned);
            `damping` and `nonlinearity` are terms as well, where there are such.
        tensor: diffusion tensor, `isotropic`, `diagonal` or `full`.
        forcing: `initial`, `constant` or `steady` (see `operators.pde.propagate`).
        units: `image` or `pixel`.
        condition: `none`; `input` or `cond` make the learned coefficients functions of the pooled input or of the
            conditioning vector, per image and channel group.
        groups: channel groups that share conditioned coefficients.
        state: state channels per inner channel.
        order: of the equation in time: 1, or 2 for damped waves (see `operators.pde.flows.telegraph`). A wave needs
            diffusion and initial forcing; its velocity is kept below what makes it grow.
        initial_velocity: how a wave starts, the rate of change over the field: `zero`, `decay` (minus half the
            damping) or `learned`.
        nonlinearity: a reaction that is not linear, `logistic` or `allen_cahn` (see `operators.pde.flows.reaction`),
            in each state channel; or `none`. `logistic` starts from sigmoid(u).
        steps: steps of time in which that reaction is split from the linear equation.
        method: how the equation is solved, the same choice as `backend`: `auto`, `separable`, `fft`, `reference`; for
            coefficients that no image conditions, on the CPU, `compiled` and `compiled_fft`: products as in `separable`
            and transforms as in `fft`, in one pass. Videos are served by `fft` and `reference` alone. Where no term
            mixes, each of them is `pointwise`.

    Raises:
        InputError: unknown names, and combinations that cannot mean anything.

    Source:
        arXiv 2603.13663 with v = -b. r is kept in [-8, 0]; K = L L^T / 2 with L lower triangular.
    """

    canonical: ClassVar[dict[str, str]] = {"method": "fft"}
    """Parameters with which an operation counter sees the canonical cost."""

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        terms: Sequence[str] = TERMS,
        boundary: str | Sequence[str] = "periodic",
        coefficients: str | Mapping[str, str] = "learned",
        tensor: str = "diagonal",
        forcing: str = "initial",
        units: str = "image",
        condition: str = "none",
        groups: int = 8,
        state: int = 4,
        order: int = 1,
        initial_velocity: str = "zero",
        nonlinearity: str = "none",
        steps: int = 1,
        method: str = "auto",
    ) -> None:
        agreed = check(
            backend=backend, axes=site.axes, terms=terms, boundary=boundary, coefficients=coefficients, tensor=tensor,
            forcing=forcing, units=units, condition=condition, groups=groups, state=state, order=order,
            initial_velocity=initial_velocity, nonlinearity=nonlinearity, steps=steps, method=method,
        )  # fmt: skip
        super().__init__(site, backend=agreed.method)
        self.agreed, self.call, self.units, self.condition, self.steps = agreed, agreed.call, units, condition, steps
        self._refuse_the_place(groups)

        self._kept: Kept | None = None
        self.groups = groups if condition != "none" else site.width
        frames = () if site.frames is None else (site.frames,)
        self.grid = (DEFAULT_SIDE,) * site.axes if site.grid is None else (*frames, *site.grid)
        self.readout = nn.Parameter(torch.randn(site.width, state) / math.sqrt(state))
        self.skip = nn.Parameter(torch.ones(site.width))
        start = draw(agreed, self.groups, self.grid)
        self._learned = [name for name in start if term_of(name) in agreed.learned]
        for name, value in start.items():
            if name in self._learned:
                setattr(self, name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)
        self.no_weight_decay = frozenset(name for name, _ in self.named_parameters())
        self.raw_sizes = {name: value.shape[-1] for name, value in start.items()}
        if condition != "none":
            source = site.dim if condition == "input" else site.cond_dim
            assert source is not None
            numbers = sum(self.raw_sizes[name] for name in self._learned)
            self.modulate = nn.Linear(source, self.groups * state * numbers)
            linear_init(self.modulate)

    def _refuse_the_place(self, groups: int) -> None:
        if self.condition == "cond" and self.site.cond_dim is None:
            raise InputError(
                "pde.condition=cond needs a model that conditions (cond_dim); use pde.condition=input or none"
            )
        if self.condition != "none" and self.site.width % groups:
            raise InputError(f"pde.groups={groups} must divide the mixer's {self.site.width} inner channels")

    @property
    def needs_cond(self) -> bool:
        return self.condition == "cond"

    def route_on(self, *grid: int) -> tuple[str, Call]:
        """The name of the route that serves a grid now, and what it was chosen by."""
        device = self.skip.device.type
        call = replace(self.call, grid=grid, device=device, differentiated=differentiated())
        return choose(self.requested_backend, call, METHOD), call

    @classmethod
    def availability(cls) -> dict[str, str | None]:
        """For each backend None, or the reason why it serves no equation on this machine."""
        call = Call(boundary="periodic", forcing="initial", spatial=True, full=False)
        return {name: REFUSALS[name](call) for name in cls.card.backends}

    @property
    def backend(self) -> str:
        return self.route_on(*self.grid)[0]

    def raw_coefficients(self, x: Tensor, cond: Tensor | None) -> dict[str, Tensor]:
        """Raw numbers (D, S, numbers), or (B, groups, S, numbers) when conditioned; see `equations.coefficients`."""
        dtype = wide(self.skip.dtype)
        raw = {name: getattr(self, name).to(dtype) for name in self.raw_sizes}
        if self.condition != "none":
            source = x.flatten(1, -2).mean(1) if self.condition == "input" else cond
            assert source is not None
            change = self.modulate(source.to(self.modulate.weight.dtype)).to(dtype)
            change = MOST_CHANGE * (change / MOST_CHANGE).tanh()
            change = change.unflatten(-1, (self.groups, self.agreed.states, -1))
            parts = change.split([self.raw_sizes[name] for name in self._learned], dim=-1)
            raw |= {name: raw[name] + part for name, part in zip(self._learned, parts, strict=True)}
            raw = {name: value.expand(x.shape[0], -1, -1, -1) for name, value in raw.items()}
        return raw

    def solve_coefficients(self, x: Tensor, cond: Tensor | None) -> Coefficients:
        """Coefficients in image units over one unit of time, (D, S), or (B, groups, S) when conditioned."""
        return physical(self.raw_coefficients(x, cond), self.agreed)

    def _in_pixels(self, coefficients: Coefficients, *grid: int) -> Coefficients:
        return coefficients.in_pixels(grid if self.units == "image" else self.grid, units="image")

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        if not len(u):
            return self._nothing(u, x, cond)
        name, call = self.route_on(*u.shape[1:-1])
        with full_precision(u):
            prepared = self._prepared(name, call, u, x, cond)
            if self.agreed.nonlinearity != "none":
                return self._split(name, call, prepared, u)
        return ROUTES[name].solve(call, prepared, u)

    def _split(self, name: str, call: Call, prepared: Prepared, u: Tensor) -> Tensor:
        """Strang's splitting, with channels (group, state, channel of the group)."""
        *solvers, rate, weight = prepared
        parts = len(solvers) // 2
        half, whole = (partial(ROUTES[name].apply, call, tuple(each)) for each in (solvers[:parts], solvers[parts:]))
        shape = self.groups, self.agreed.states, weight.shape[1]
        field = u.to(weight.dtype).unflatten(-1, (self.groups, 1, -1)).expand(*u.shape[:-1], *shape).flatten(-3)
        if self.agreed.nonlinearity == "logistic":
            field = field.sigmoid()
        field = strang(field, self.steps, half, whole, partial(react, rate=rate, nonlinearity=self.agreed.nonlinearity))
        mixed = (field.unflatten(-1, shape) * weight.mT).sum(-2).flatten(-2)
        return (mixed + self.skip.to(mixed.dtype) * u).to(u.dtype)

    def _nothing(self, u: Tensor, x: Tensor, cond: Tensor | None) -> Tensor:
        """An empty batch, whose gradients are zero and not missing; transforms refuse it."""
        made = self.raw_coefficients(x, cond).values()
        total = sum((value.sum() for value in made), self.readout.sum() + self.skip.sum())
        return u * total.to(u.dtype)

    def _prepared(self, name: str, call: Call, u: Tensor, x: Tensor, cond: Tensor | None) -> Prepared:
        """What the route applies to u; kept for the next call if nothing asks for a gradient, up to twice its size."""
        weight = self.readout.to(wide(self.readout.dtype)).unflatten(0, (self.groups, -1))
        key, numbers = (name, call), [weight, self.skip, *(getattr(self, raw) for raw in self.raw_sizes)]
        keeping = may_keep(u) and not call.conditioned
        if keeping:
            kept = self._kept
            if kept is not None and kept.serves(key, numbers):
                return kept.made
        raw = self.raw_coefficients(x, cond)
        coefficients = self._in_pixels(physical(raw, self.agreed), *call.sides)
        if self.agreed.nonlinearity == "none":
            made = ROUTES[name].prepare(call, coefficients, weight, self.skip.to(weight.dtype))
        else:
            made = *self._solvers(name, call, coefficients, weight), self._rates(raw, weight.shape[1]), weight
        if keeping:
            self._kept = keep(key, numbers, made, u)
        return made

    def _solvers(self, name: str, call: Call, coefficients: Coefficients, weight: Tensor) -> Prepared:
        """What solves the linear equation over half a step, and over a whole one."""
        ones = weight.new_ones(self.groups * self.agreed.states, weight.shape[1], 1)
        alone = coefficients.map(lambda value: value.flatten(-2)[..., None])

        def over(time: float) -> Prepared:
            return ROUTES[name].prepare(call, alone.map(lambda value: value * time), ones, None)

        return *over(0.5 / self.steps), *over(1 / self.steps)

    def _rates(self, raw: Mapping[str, Tensor], members: int) -> Tensor:
        """Rates of a step, (1 or B, 1, 1, channels), with as many axes as the grid."""
        rates = (reaction_rate(raw) / self.steps)[..., None]
        rates = rates.expand(*rates.shape[:-1], members).flatten(-3)
        return rates.view(-1, *[1] * len(self.grid), rates.shape[-1])

    def core_cost(self, height: int, width: int) -> Cost:
        """The FFT route: one real transform there and one back, and a complex product; each on the extended grid."""
        return self._cost(height, width)

    def video_cost(self, frames: int, height: int, width: int) -> Cost:
        """As of an image, with a third axis."""
        return self._cost(frames, height, width)

    def _cost(self, *grid: int) -> Cost:
        channels = self.site.width
        conditioned = self.call.conditioned
        projection = self.modulate.weight.numel() if conditioned else 0
        if not self.call.spatial:
            return Cost(projection_macs=projection)
        *others, columns = extended(grid, self.call.boundary)
        points, half = math.prod(others) * columns, math.prod(others) * (columns // 2 + 1)
        states, reacts = self.agreed.states, self.agreed.nonlinearity != "none"
        mixing = 2 * fft_macs(points) + complex_product_macs(half)
        if reacts:  # every state is transformed by itself, between the steps of its reaction
            mixing *= states * (self.steps + 1)
        if conditioned:
            # Every image has propagators of its own: a complex product per state and wave number sums the states.
            mixing += 4 * states * half * (2 if reacts else 1)
        return Cost(
            projection_macs=projection,
            mixing_macs=round(channels * mixing),
            state_elements=math.prod(grid) * channels * states,
        )

    @torch.no_grad()
    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`kernel` (B, D, H, W), the response to a unit at the centre; coefficients in `units` of the mixer.

        The latter by axis, frames first; then the entries of K off its diagonal, those of frames first.
        """
        grid = u.shape[1:-1]
        point = torch.zeros_like(u)
        centre = point
        for length in grid:
            centre = centre.select(1, length // 2)
        centre.fill_(1)
        shown = {"kernel": self(point, x=x, cond=cond).movedim(-1, 1)}
        solved = self.solve_coefficients(x, cond)
        scaled = solved if self.units == "image" else self._in_pixels(solved, *grid)
        names = {
            "diffusion": ("ktt", "kyy", "kxx", "kty", "ktx", "kxy"), "velocity": ("vt", "vy", "vx"),
            "reaction": ("r",), "damping": ("damping",),
        }  # fmt: skip
        for name, entries in names.items():
            values = [getattr(scaled, entry) for entry in entries if getattr(scaled, entry) is not None]
            if values:
                shown[name] = torch.stack(values, dim=-1)
        return shown
