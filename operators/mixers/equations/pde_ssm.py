"""The mixer `pde_ssm`: every channel is carried, spread and damped by a learned equation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from operators.card import MixerCard, Site
from operators.cost import Cost, complex_product_macs, fft_macs
from operators.errors import InputError
from operators.initialisation import linear_init
from operators.mixer import Core
from operators.mixers.equations.options import COMPILED, COMPILED_FFT, TERMS, check
from operators.pde.filter_op import filtered, serves
from operators.pde.matrices_op import matrices
from operators.pde.equation import choose
from operators.pde.propagators import apply_transfer, axis_matrices, permuted, summed_transfer
from operators.pde.reference import propagate_reference
from operators.pde.separable_op import separable
from operators.pde.symbols import Coefficients, respond
from operators.precision import full_precision, under_autocast, wide
from operators.registry import register
from operators.runtime.differentiation import differentiated, transformed
from operators.runtime.fakes import valueless
from operators.shell.spec import ShellSpec

MOST_DECAY = 8.0
LEAST_STEADY_DECAY = 0.5
"""Of steady forcing. Its kernels depend on K / r and v / r alone: the bound costs nothing and limits their reach."""
MOST_CHANGE = 3.0
"""Largest change of a raw coefficient by conditioning, so that no input, however large, makes it overflow."""
DEFAULT_GRID = (16, 16)


class _Kept(NamedTuple):
    """Propagators and what they were made from, in one record: threads that share a module swap it as a whole."""

    key: tuple[Any, ...]
    numbers: tuple[Tensor, ...]
    propagators: tuple[Tensor, ...]


@register(
    MixerCard(
        name="pde_ssm",
        family="equations",
        title="PDE-SSM",
        source="arXiv 2603.13663 (abstract; block details are not public and are specified here)",
        year=2026,
        equation="du/dt = div(K grad u) - v.grad u + r u, u(0) = B x;  y = C u(1) + D x",
        position_aware=True,
        permutation_equivariant=False,
        translation_equivariant="circular",
        linear=True,
        fp32_core=True,
        backends=("separable", "compiled", "fft", "compiled_fft", "reference"),
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
    says whether they keep their size in images or in pixels (of the nominal grid) when the resolution changes.

    Args:
        site: where the core stands. Its nominal grid (16 × 16 without one) scales the initialisation.
        backend: like `method`.
        terms: any subset of `convection`, `diffusion`, `reaction`. Without spatial terms nothing mixes.
        boundary: `periodic`, `neumann`, `dirichlet` or `absorbing` (see `operators.pde.propagate`).
        coefficients: `learned`, `fixed` (as initialised), or a mapping from term to one of these (default learned).
        tensor: diffusion tensor, `isotropic`, `diagonal` or `full`.
        forcing: `initial`, `constant` or `steady` (see `operators.pde.propagate`).
        units: `image` or `pixel`.
        condition: `none`; `input` or `cond` make the learned coefficients functions of the pooled input or of the
            conditioning vector, per image and channel group.
        groups: channel groups that share conditioned coefficients.
        state: state channels per inner channel.
        method: `auto`, `separable`, `fft`, `reference`; for coefficients that no image conditions, on the CPU,
            `compiled` and `compiled_fft`: products as in `separable` and transforms as in `fft`, in one pass.

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
        boundary: str = "periodic",
        coefficients: str | Mapping[str, str] = "learned",
        tensor: str = "diagonal",
        forcing: str = "initial",
        units: str = "image",
        condition: str = "none",
        groups: int = 8,
        state: int = 4,
        method: str = "auto",
    ) -> None:
        super().__init__(site, backend=backend)
        agreed = check(
            backend=backend,
            terms=terms,
            boundary=boundary,
            coefficients=coefficients,
            tensor=tensor,
            forcing=forcing,
            units=units,
            condition=condition,
            groups=groups,
            state=state,
            method=method,
        )
        self.terms, self.learned = agreed.terms, agreed.learned
        self.boundary, self.tensor, self.forcing, self.units = boundary, tensor, forcing, units
        self.condition, self.state = condition, state
        self.method, self.separable = agreed.method, agreed.separable
        self._refuse_the_place(groups)

        self._kept: _Kept | None = None
        self.groups = groups if condition != "none" else site.width
        self.grid = site.grid or DEFAULT_GRID
        self.readout = nn.Parameter(torch.randn(site.width, state) / math.sqrt(state))
        self.skip = nn.Parameter(torch.ones(site.width))
        start = self._initial_coefficients()
        for name, value in start.items():
            if self._term_of(name) in self.learned:
                setattr(self, name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)
        self.no_weight_decay = frozenset(name for name, _ in self.named_parameters())
        self.raw_sizes = {name: value.shape[-1] for name, value in start.items()}
        if condition != "none":
            source = site.dim if condition == "input" else site.cond_dim
            assert source is not None
            numbers = sum(size for name, size in self.raw_sizes.items() if self._term_of(name) in self.learned)
            self.modulate = nn.Linear(source, self.groups * state * numbers)
            linear_init(self.modulate)

    def _refuse_the_place(self, groups: int) -> None:
        if self.condition == "cond" and self.site.cond_dim is None:
            raise InputError(
                "pde.condition=cond needs a model that conditions (cond_dim); use pde.condition=input or none"
            )
        if self.condition != "none" and self.site.width % groups:
            raise InputError(f"pde.groups={groups} must divide the mixer's {self.site.width} inner channels")

    def _initial_coefficients(self) -> dict[str, Tensor]:
        """Raw coefficients (groups, state, numbers): many scales at once, most of them short."""
        height, width = self.grid
        pixel = 1 / math.sqrt(height * width)
        count = self.groups * self.state
        # One length in each of `count` equal shares of probability, so that no model misses a scale by bad luck.
        quantile = ((torch.randperm(count) + torch.rand(count)) / count).view(self.groups, self.state, 1)
        short, long = pixel / 3, max(0.5, pixel / 3)
        log_length = (1 - quantile**2) * math.log(short) + quantile**2 * math.log(long)
        drift = torch.randn(self.groups, self.state, 2) * (pixel + log_length.exp() / 2)
        raw = {}
        if "diffusion" in self.terms:
            raw["log_length"] = log_length.repeat(1, 1, 1 if self.tensor == "isotropic" else 2)
            if self.tensor == "full":
                raw["shear"] = torch.zeros_like(log_length)
        if "convection" in self.terms:
            raw["velocity"] = drift
        if "reaction" in self.terms:
            # Under initial forcing a mere gain, best near 1; otherwise it shapes the kernel.
            decay = 0.05 if self.forcing == "initial" else 0.5
            raw["reaction_logit"] = torch.full_like(log_length, math.log(decay / (MOST_DECAY - self._least - decay)))
        return raw

    @property
    def _least(self) -> float:
        """The reaction is kept at or below minus this."""
        return LEAST_STEADY_DECAY if self.forcing == "steady" else 0.0

    @staticmethod
    def _term_of(name: str) -> str:
        return {"velocity": "convection", "reaction_logit": "reaction"}.get(name, "diffusion")

    @property
    def needs_cond(self) -> bool:
        return self.condition == "cond"

    @property
    def spatial(self) -> bool:
        """Whether any term moves content between pixels."""
        return "diffusion" in self.terms or "convection" in self.terms

    def method_on(self, height: int, width: int) -> str:
        """What serves a height × width grid: `pointwise` where no term mixes, else the method set or chosen."""
        if not self.spatial:
            return "pointwise"
        device = self.skip.device.type
        if self.method in (COMPILED, COMPILED_FFT) and device != "cpu":
            raise InputError(f"pde.method={self.method} runs on the CPU, not on {device}; use pde.method=auto")
        if self.method == COMPILED_FFT and not serves(height, width, self.boundary):
            raise InputError(
                f"pde.method={COMPILED_FFT} needs sides of 2 and more without factors other than 2, 3, 5, 7, not "
                f"{height}x{width}; use pde.method=fft or auto"
            )
        if self.method in (COMPILED, COMPILED_FFT) and differentiated():
            raise InputError(
                f"pde.method={self.method} has neither forward-mode derivatives nor those of torch.func: set "
                "pde.method to auto, fft or separable"
            )
        if self.method != "auto":
            return self.method
        serving = device == "cpu" and self.condition == "none" and not differentiated()
        boundary = self.boundary if serving else None
        return choose(self.separable, height, width, self.state, compiled=boundary)

    @property
    def backend(self) -> str:
        return self.method_on(*self.grid)

    def solve_coefficients(self, x: Tensor, cond: Tensor | None) -> Coefficients:
        """Coefficients in image units over one unit of time, (D, S), or (B, groups, S) when conditioned."""
        dtype = wide(self.skip.dtype)
        raw = {name: getattr(self, name).to(dtype) for name in self.raw_sizes}
        if self.condition != "none":
            source = x.mean((1, 2)) if self.condition == "input" else cond
            assert source is not None
            learned = [name for name in raw if self._term_of(name) in self.learned]
            change = self.modulate(source.to(self.modulate.weight.dtype)).to(dtype)
            change = MOST_CHANGE * (change / MOST_CHANGE).tanh()
            change = change.unflatten(-1, (self.groups, self.state, -1))
            parts = change.split([self.raw_sizes[name] for name in learned], dim=-1)
            raw |= {name: raw[name] + part for name, part in zip(learned, parts, strict=True)}
            raw = {name: value.expand(x.shape[0], -1, -1, -1) for name, value in raw.items()}
        return self._physical(raw)

    def _physical(self, raw: Mapping[str, Tensor]) -> Coefficients:
        made: dict[str, Tensor] = {}
        if "log_length" in raw:
            squares = (2 * raw["log_length"]).exp() / 2
            made["kyy"], made["kxx"] = squares.expand(*squares.shape[:-1], 2).unbind(-1)
        if "shear" in raw:
            # L = [[a, 0], [b c, c]] with K = L L^T / 2: a and c are lengths, b is the shear.
            a, c = raw["log_length"].exp().unbind(-1)
            b = raw["shear"].squeeze(-1)
            made["kxy"] = a * b * c / 2
            made["kxx"] = made["kxx"] * (1 + b**2)
        if "velocity" in raw:
            made["vy"], made["vx"] = raw["velocity"].unbind(-1)
        if "reaction_logit" in raw:
            made["r"] = -self._least - (MOST_DECAY - self._least) * raw["reaction_logit"].squeeze(-1).sigmoid()
        return Coefficients(**made)

    def _in_pixels(self, coefficients: Coefficients, height: int, width: int) -> Coefficients:
        return coefficients.in_pixels(*((height, width) if self.units == "image" else self.grid), units="image")

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        if not len(u):
            return self._nothing(u, x, cond)
        height, width = u.shape[1:3]
        method = self.method_on(height, width)
        with full_precision(u):
            weight = self.readout.to(wide(self.readout.dtype)).unflatten(0, (self.groups, -1))
            if method in ("pointwise", "reference"):
                coefficients = self._in_pixels(self.solve_coefficients(x, cond), height, width)
                direct = self._pointwise if method == "pointwise" else self._reference
                mixed = direct(u, coefficients, weight)
            else:
                propagators = self._propagators(method, u, x, cond, weight)
            if method == COMPILED:
                return separable(u.to(weight.dtype), *propagators, self.skip.to(weight.dtype)).to(u.dtype)
            if method == COMPILED_FFT:
                return filtered(u.to(weight.dtype), *propagators, self.boundary).to(u.dtype)
            if method == "fft":
                return apply_transfer(u.to(weight.dtype), propagators[0], self.boundary, last=True).to(u.dtype)
        if method == "separable":
            rows, columns = propagators
            # Autocast chooses the type of the products; without it theirs is the propagators'.
            field = u if under_autocast(u) else u.to(weight.dtype)
            mixed = self._separable(field, rows, columns, weight)
        return mixed.to(u.dtype) + self.skip.to(u.dtype) * u

    def _nothing(self, u: Tensor, x: Tensor, cond: Tensor | None) -> Tensor:
        """An empty batch, whose gradients are zero and not missing; transforms refuse it."""
        made = [value for value in vars(self.solve_coefficients(x, cond)).values() if value is not None]
        total = sum((value.sum() for value in made), self.readout.sum() + self.skip.sum())
        return u * total.to(u.dtype)

    def _propagators(
        self, method: str, u: Tensor, x: Tensor, cond: Tensor | None, weight: Tensor
    ) -> tuple[Tensor, ...]:
        """What `method` applies to u; kept for the next call if nothing asks for a gradient, up to twice u's memory."""
        height, width = u.shape[1:3]
        looked_into = torch.is_grad_enabled() or torch.compiler.is_compiling() or transformed()
        keep = not looked_into and u.device.type == "cpu" and not valueless(u) and self.condition == "none"
        if keep:
            # By value, which takes microseconds: version counters miss what is written through `.data`.
            key, numbers = (
                (method, height, width, weight.dtype),
                [weight, self.skip, *(getattr(self, name) for name in self.raw_sizes)],
            )
            kept = self._kept
            if kept is not None and kept.key == key and all(map(torch.equal, kept.numbers, numbers)):
                return kept.propagators
        coefficients = self._in_pixels(self.solve_coefficients(x, cond), height, width)
        made: tuple[Tensor, ...]
        if method in ("fft", COMPILED_FFT):
            response = summed_transfer(coefficients, weight, height, width, self.boundary, self.forcing)
            # With the term D u, which would be a pass of its own over the fields.
            response = response.flatten(-4, -3) + self.skip.to(weight.dtype)[:, None, None]
            if method == COMPILED_FFT:
                made = (permuted(torch.view_as_real(response), 3, 1, 2, 0),)
            else:
                images = range(response.ndim - 3)
                made = (permuted(response, *images, *(axis + len(images) for axis in (1, 2, 0))),)
        elif method == COMPILED:
            made = matrices(coefficients, weight[:, 0], height, width, self.boundary)
        else:
            gain = weight[:, 0] if self.condition == "none" else None
            made = axis_matrices(coefficients, height, width, self.boundary, gain)
        if keep:
            fits = sum(one.nbytes for one in made) <= 2 * u.nbytes
            self._kept = _Kept(key, tuple(number.clone() for number in numbers), made) if fits else None
        return made

    def _pointwise(self, u: Tensor, coefficients: Coefficients, weight: Tensor) -> Tensor:
        if coefficients.r is None:
            gain = weight.sum(-1)
        else:
            gain = (weight * respond(coefficients.r, self.forcing)[..., None, :]).sum(-1)
        return u * gain.flatten(-2).view(-1, 1, 1, self.site.width)

    def _separable(self, u: Tensor, rows: Tensor, columns: Tensor, weight: Tensor) -> Tensor:
        """Two batched matrix products: all states' rows stacked, then columns, summed over states."""
        batch, height, width, _ = u.shape
        conditioned = rows.ndim == 5
        if conditioned:
            field = permuted(u.unflatten(-1, (self.groups, -1)), 0, 3, 1, 4, 2).flatten(0, 1)
            rows, columns = rows.flatten(0, 1), columns.flatten(0, 1)
        else:
            if height * width <= self.state * (height + width):
                return self._multiplied_out(u, rows, columns)
            field = permuted(u, 3, 1, 0, 2)
        problems, _, members, _ = field.shape
        across = torch.bmm(rows.flatten(1, 2), field.view(problems, height, members * width))
        if conditioned:
            share = weight.mT[None, :, :, None, :, None].to(across.dtype)
            across = across.view(batch, self.groups, self.state, height, members, width) * share
        across = across.view(problems * self.state, height * members, width)
        along = torch.bmm(across, columns.mT.flatten(0, 1)).view(problems, self.state, height, members, width)
        along = along.sum(1) if self.state > 1 else along[:, 0]
        if not conditioned:
            return permuted(along, 2, 1, 3, 0)
        return permuted(along.unflatten(0, (batch, self.groups)), 0, 2, 4, 1, 3).flatten(-2)

    @staticmethod
    def _multiplied_out(u: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """One batched product with the states' summed pixel-to-pixel matrices: fewer operations on small grids."""
        channels, _, height, width = *rows.shape[:3], columns.shape[-1]
        pixels = height * width
        with full_precision(u):
            kernel = torch.bmm(rows.flatten(2).mT, columns.flatten(2)).view(channels, height, height, width, width)
        kernel = permuted(kernel, 0, 1, 3, 2, 4).view(channels, pixels, pixels)
        mixed = torch.bmm(kernel, permuted(u.flatten(1, 2), 2, 1, 0))
        return permuted(mixed, 2, 1, 0).unflatten(1, (height, width))

    def _reference(self, u: Tensor, coefficients: Coefficients, weight: Tensor) -> Tensor:
        """Every state of every channel of every image by itself."""
        members, height, width = weight.shape[1], u.shape[1], u.shape[2]

        def spread(value: Tensor) -> Tensor:
            per_channel = value.repeat_interleave(members, dim=-2)
            return per_channel.expand(u.shape[0], -1, -1).flatten()

        field = u.to(weight.dtype).permute(0, 3, 1, 2)[:, :, None].expand(-1, -1, self.state, -1, -1)
        solved = propagate_reference(field.flatten(0, 2), coefficients.map(spread), self.boundary, self.forcing)
        states = solved.view(*u.shape[::3], self.state, height, width)
        return torch.einsum("bdshw,ds->bhwd", states, weight.flatten(0, 1))

    def core_cost(self, height: int, width: int) -> Cost:
        """The FFT route: one real transform there and one back, and a complex product; each on the extended grid."""
        channels = self.site.width
        conditioned = self.condition != "none"
        projection = self.modulate.weight.numel() if conditioned else 0
        if not self.spatial:
            return Cost(projection_macs=projection)
        scale = 1 if self.boundary == "periodic" else 2
        rows, columns = scale * height, scale * width
        half_plane = rows * (columns // 2 + 1)
        mixing = 2 * fft_macs(rows * columns) + complex_product_macs(half_plane)
        if conditioned:
            # Every image has propagators of its own: a complex product per state and wave number sums the states.
            mixing += 4 * self.state * half_plane
        return Cost(
            projection_macs=projection,
            mixing_macs=round(channels * mixing),
            state_elements=height * width * channels * self.state,
        )

    @torch.no_grad()
    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`kernel` (B, D, H, W), the response to a unit at the centre; coefficients in `units` of the mixer."""
        height, width = u.shape[1:3]
        point = torch.zeros_like(u)
        point[:, height // 2, width // 2] = 1
        shown = {"kernel": self(point, x=x, cond=cond).permute(0, 3, 1, 2)}
        solved = self.solve_coefficients(x, cond)
        scaled = solved if self.units == "image" else self._in_pixels(solved, height, width)
        names = {"diffusion": ("kyy", "kxx", "kxy"), "velocity": ("vy", "vx"), "reaction": ("r",)}
        for name, entries in names.items():
            values = [getattr(scaled, entry) for entry in entries if getattr(scaled, entry) is not None]
            if values:
                shown[name] = torch.stack(values, dim=-1)
        return shown
