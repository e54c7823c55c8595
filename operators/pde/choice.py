"""Which route serves a call: the names of the routes, what each refuses, and what `auto` means; needs no torch.

A route is a row of two tables: what it refuses stands here, so that a wrong word is answered before torch is imported;
what it computes stands in `operators.pde.routes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from operators.cpu.availability import refusal
from operators.errors import InputError
from operators.pde.boundary import Boundary, by_axis, written

FORCINGS = ("initial", "constant", "steady")
UNITS = ("pixel", "image")
NONLINEARITIES = ("none", "logistic", "allen_cahn")

COMPILED_LIMITS = {"periodic": 80, "neumann": 192, "dirichlet": 192, "absorbing": 192}
"""States times (height + width) up to which compiled products beat compiled transforms, whose grid is twice as long and
wide unless the boundary is periodic. Time over theirs, forward and backward, two x86-64 cores, 384 channels, 8 images:
periodic 0.6 and less (32 = states times sides), 0.7 to 1.0 (64, 8² to 32²), 1.2 (96, 24² and 48²), 1.2 to 2.0 (128, 16²
to 64²), 2.8 to 3.7 (256); neumann 0.7 to 0.9 (128), 0.9 and 1.0 (192, 24² and 48²), 1.3 to 1.5 (256, 32² and 64²). In
evaluation, where matrices and transfer functions are there, 0 to 0.3 less."""
SEPARABLE_LIMIT = 100
"""States times (height + width) up to which matrix products beat a pair of FFTs, both torch's.

The FFT route sums the states' transfer functions first, so that its cost does not grow with them. Time of the separable
over that of the FFT route, forward and backward, one x86-64 core: 0.7 to 0.9 from 7² to 48² and 1.3 to 1.5 from 64² to
128² with one state; with four, 0.7 at 7² and 1.8 to 5.4 from 14² to 128².
"""


@dataclass(frozen=True)
class Call:
    """What routes tell calls apart by.

    Attributes:
        boundary: how the input is extended, one word where all axes have the same.
        forcing: what the input is.
        spatial: whether any term moves content between pixels.
        full: whether the diffusion tensor has an entry off its diagonal.
        order: of the equation in time.
        states: solutions that are summed per channel.
        conditioned: whether every image has coefficients of its own.
        channels_last: whether fields are (B, H, W, D), else (..., D, H, W).
        axes: of the grid: 2, images; 3, videos (B, T, H, W, D).
        device: where the tensors are, by its type.
        grid: (H, W) or (T, H, W), or None while it is not known.
        differentiated: whether forward mode or a transform of `torch.func` looks into the call.
    """

    boundary: Boundary
    forcing: str
    spatial: bool
    full: bool
    order: int = 1
    states: int = 1
    conditioned: bool = False
    channels_last: bool = True
    axes: int = 2
    device: str = "cpu"
    grid: tuple[int, ...] | None = None
    differentiated: bool = False

    @property
    def sides(self) -> tuple[int, ...]:
        """The grid, of a call whose grid is known."""
        assert self.grid is not None
        return self.grid

    @property
    def plane(self) -> tuple[int, int]:
        """(H, W) of it."""
        *_, height, width = self.sides
        return height, width

    @property
    def product(self) -> bool:
        """Whether the propagator is a product of one along each axis."""
        return self.forcing == "initial" and not self.full and self.order == 1


def _pointwise(call: Call) -> str | None:
    return "serves equations without diffusion and convection" if call.spatial else None


def _images(call: Call) -> str | None:
    return None if call.axes == 2 else "serves images alone, and this mixer serves videos"


def _separable(call: Call) -> str | None:
    if call.axes != 2:
        return _images(call)
    if call.forcing != "initial":
        return f"needs forcing='initial', not {call.forcing!r}"
    if call.order == 2:
        return "needs order=1: waves along rows and along columns are not a product"
    return "needs a diagonal or isotropic tensor" if call.full else None


def _compiled_code(call: Call) -> str | None:
    if call.axes != 2:
        return _images(call)
    if call.conditioned:
        return "needs pde.condition=none: its propagators serve all images"
    if call.device != "cpu":
        return f"runs on the CPU, not on {call.device}"
    if call.differentiated:
        return "has neither forward-mode derivatives nor those of torch.func"
    return refusal()


def _compiled(call: Call) -> str | None:
    return _separable(call) or _compiled_code(call)


def _compiled_fft(call: Call) -> str | None:
    reason = _compiled_code(call)
    if reason or call.grid is None:
        return reason
    # Here and not above: it imports torch, which a call whose grid is known has already.
    from operators.pde.filter_op import serves

    height, width = call.grid
    if serves(height, width, call.boundary):
        return None
    return f"needs sides of 2 and more without factors other than 2, 3, 5, 7, not {height}x{width}"


def _refuse_none(call: Call) -> str | None:
    return None


REFUSALS: Mapping[str, Callable[[Call], str | None]] = {
    "pointwise": _pointwise,
    "separable": _separable,
    "compiled": _compiled,
    "fft": _refuse_none,
    "compiled_fft": _compiled_fft,
    "reference": _refuse_none,
}
"""By route, the reason why it cannot serve a call, or None."""
NAMED = tuple(name for name in REFUSALS if name != "pointwise")
"""Routes that a user may name; where no term moves content, each of them means `pointwise`."""
METHODS = ("auto", *NAMED)


def named(method: str, backend: str) -> str:
    """The name that `method` and `backend`, two words for one choice, agree on; `auto` leaves it to the other.

    Raises:
        InputError: both are names, and not the same.
    """
    if "auto" not in (method, backend) and method != backend:
        raise InputError(f"pde.method={method!r} and backend={backend!r} contradict each other: set one of them")
    return backend if method == "auto" else method


def refuse_boundary(call: Call, key: str) -> None:
    """Raise `InputError` for boundaries, which the user has set by `key`, that do not go together.

    An axis without an end has no grid of wave numbers, and the other one has no quadrature; a space has none at all.
    """
    if not call.spatial or "absorbing" not in by_axis(call.boundary, call.axes):
        return
    if call.order == 2:
        raise InputError(f"{key}={written(call.boundary)} needs order=1; use {key}=periodic, neumann or dirichlet")
    if call.product:
        return
    needs = "forcing='initial' and a diagonal or isotropic tensor"
    if call.axes != 2:
        raise InputError(
            f"{key}={written(call.boundary)} needs, on videos, {needs}; use {key}=periodic, neumann or dirichlet, or "
            "one of them for each axis"
        )
    if call.boundary != "absorbing":
        raise InputError(
            f"{key}={written(call.boundary)} needs {needs}; use {key}=absorbing, or two of periodic, neumann, dirichlet"
        )


def refuse(method: str, call: Call, key: str) -> None:
    """Raise `InputError` if the route `method`, which the user has set by `key`, cannot serve a call."""
    if method == "auto" or not call.spatial:
        return
    reason = REFUSALS[method](call)
    if reason is not None:
        others = ", ".join(name for name in NAMED if REFUSALS[name](call) is None)
        raise InputError(f"{key}={method} {reason}; use {key}={others} or auto")


def choose(method: str, call: Call, key: str) -> str:
    """The route that serves a call of `method`, which the user has set by `key`.

    Raises:
        InputError: a route that cannot serve the call.
    """
    if not call.spatial:
        return "pointwise"
    if method == "auto":
        return _fastest(call)
    refuse(method, call, key)
    return method


def _compiled_limit(boundary: Boundary) -> float:
    """Two words: halfway, as their transforms are; not measured."""
    return sum(COMPILED_LIMITS[word] for word in by_axis(boundary)) / 2


def _fastest(call: Call) -> str:
    """The faster of the routes that serve a call, by the limits above."""
    serving = [name for name in NAMED if REFUSALS[name](call) is None]
    size = call.states * sum(call.sides)
    # Compiled code takes channels last; others would have to be copied there and back.
    if call.channels_last:
        transforms = "compiled_fft" in serving
        if "compiled" in serving and (not transforms or size <= _compiled_limit(call.boundary)):
            return "compiled"
        if transforms:
            return "compiled_fft"
    return "separable" if "separable" in serving and size <= SEPARABLE_LIMIT else "fft"
