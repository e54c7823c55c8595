"""Kernels of an unbounded plane with nothing outside: responses to a point, by quadrature over wave numbers.

The response at offset n is the inverse discrete-time Fourier transform of the transfer function T,

    h(n) = 1 / (2 pi)² ∫∫ T(k) exp(i k·n) dk        over [-pi, pi]²

T jumps from pi to -pi where content moves by a fraction of a pixel, so h rings and a padded FFT would err like one over
its length; Gauss-Legendre quadrature converges geometrically. T varies most near k = 0: panels halve towards it.
Memory does not grow with the reach of the response: kernels are made in pieces, and made again for their gradients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from operators.pde.symbols import Coefficients, axis_response, respond, symbol
from operators.runtime.differentiation import transformed
from operators.runtime.fakes import valueless
from operators.runtime.tracing import untraced

PIECE_BYTES = 2**27
"""Memory that making one piece of kernels, with what its gradient needs, may take."""
BYTES_PER_POINT = 60
"""Numbers that `respond` and its gradient keep for a wave number of a kernel, times a number's bytes."""
MOST_POINTS = 2**28
"""Wave numbers of one kernel beyond which it is not computed."""
LARGEST_RULE = 128
"""Nodes of a Gauss-Legendre rule at most: making one takes time with the cube of their number."""
HALVINGS = 20
"""Most panels that halve towards zero."""
STEEPEST = 1.3
"""Size mu of the ellipse around a panel of wave numbers [a, 2a]: cosh(mu) <= 2 keeps it at and above a / 2."""
Rule = tuple[float, float, int]
"""A panel of wave numbers, from low to high, and its nodes."""
_ANY_RULES = ([(0.0, math.pi, 32)], [(0.0, math.pi, 32)])
"""Of a kernel without values."""
UNSEEN = 1 / (1e-6 * math.pi)
"""Pixels beyond which ringing, which falls as 1 / (pi n), is below 1e-6 of the peak."""


def _digits(like: Tensor) -> float:
    """Natural logarithm of the precision sought."""
    return 36.0 if like.dtype == torch.float64 else 16.0


@lru_cache(maxsize=LARGEST_RULE)
def _gauss_legendre(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(nodes)


def _rule(low: float, high: float, nodes: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Nodes and weights on [low, high], in parts no larger than the largest rule."""
    parts = math.ceil(nodes / (LARGEST_RULE - 48)) if nodes > LARGEST_RULE else 1
    points, weights = _gauss_legendre(nodes if parts == 1 else math.ceil(nodes / parts) + 44)
    half = (high - low) / (2 * parts)
    for part in range(parts):
        yield low + half * (2 * part + 1 + points), half * weights


def _quadrature(rules: list[Rule], like: Tensor) -> tuple[Tensor, Tensor]:
    """Wave numbers and weights of (low, high, nodes) panels."""
    parts = [part for rule in rules for part in _rule(*rule)]
    k, weight = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return tuple(torch.as_tensor(array, dtype=like.dtype, device=like.device) for array in (k, weight))  # type: ignore[return-value]


def _offsets(length: int, like: Tensor) -> Tensor:
    return torch.arange(1 - length, length, dtype=like.dtype, device=like.device)


def _again(make: partial[Tensor], *given: Tensor) -> Tensor:
    """`make(*given)`, of which nothing but what is given is kept for the gradient; transforms know no such thing."""
    if not torch.is_grad_enabled() or transformed() or any(valueless(tensor) for tensor in given):
        return make(*given)
    made: Tensor = checkpoint(make, *given, use_reentrant=False, preserve_rng_state=False)
    return made


@untraced
def axis_plane_kernel(length: int, diffusion: Tensor | None, velocity: Tensor | None, like: Tensor) -> Tensor:
    """Response (..., 2 length - 1) at offsets 1-length … length-1 along one axis of an unbounded plane.

    It is 1/pi ∫ exp(-K k²) cos(k (n - v)) dk over [0, pi]; a Gaussian, where K is so large that pi is as good as
    infinity. Coefficients that are not finite give responses that are not.
    """
    given = diffusion if diffusion is not None else velocity
    assert given is not None
    spread = torch.zeros_like(given) if diffusion is None else diffusion
    drift = torch.zeros_like(given) if velocity is None else velocity
    offsets, zero = _offsets(length, like), torch.zeros_like(given)
    gaussian = spread >= _digits(like) / math.pi**2
    k_gaussian = torch.where(gaussian, spread, torch.ones_like(spread))[..., None]
    distance = offsets - torch.where(gaussian, drift, zero)[..., None]
    smooth = (-(distance**2) / (4 * k_gaussian)).exp() / (4 * math.pi * k_gaussian).sqrt()
    k_narrow, v_narrow = torch.where(gaussian, zero, spread), torch.where(gaussian, zero, drift)

    near = 2 * length + 48
    far = v_narrow.detach().abs() > near
    sampled = _sampled(length, near, k_narrow, torch.where(far, zero, v_narrow))
    if not valueless(like) and bool(far.any()):
        seen = far & (v_narrow.detach().abs() < UNSEEN + length)
        sampled = torch.where(far[..., None], torch.zeros_like(sampled), sampled)
        at = seen.nonzero(as_tuple=True)
        if len(at[0]):
            # One by one: each has as many wave numbers as it is pixels away. Far away single precision would lose the
            # angle of v k, and with it the difference of waves that is all there is; the CPU has double precision.
            rows = [
                _again(partial(_sampled, length, math.ceil(float(v.detach().abs()))), k[None], v[None])
                for k, v in zip(k_narrow[at].cpu().double(), v_narrow[at].cpu().double(), strict=True)
            ]
            sampled = sampled.index_put(at, torch.cat(rows).to(sampled))
    return torch.where(gaussian[..., None], smooth, sampled) + 0 * (spread + drift)[..., None]


def _sampled(length: int, farthest: int, diffusion: Tensor, velocity: Tensor) -> Tensor:
    """The response along an axis by quadrature, for |velocity| <= farthest."""
    total = torch.zeros(*diffusion.shape, 2 * length - 1, dtype=diffusion.dtype, device=diffusion.device)
    k, weight = _quadrature([(0.0, math.pi, math.ceil(math.pi / 4 * (length + farthest)) + 28)], diffusion)
    for wave_numbers, share in zip(k.split(2048), weight.split(2048), strict=True):
        response = axis_response(wave_numbers, diffusion, velocity, even=False) * share / math.pi
        phase = wave_numbers[:, None] * _offsets(length, diffusion)
        total = total + response.real @ phase.cos() - response.imag @ phase.sin()
    return total


def _orders(
    length: int, own: Tensor, other: Tensor, cross: Tensor, drift: Tensor, decay: Tensor, forcing: str, digits: float
) -> tuple[Tensor, Tensor]:
    """Nodes of the panels [pi/2^(j+1), pi/2^j] and [0, pi/2^j], each (HALVINGS + 1, kernels), along one axis.

    A rule of N nodes errs by at most M exp(-2 N mu), where M bounds the integrand on the ellipse of size mu around its
    panel. At height eta above the real axis |T| is at most exp(c) as long as own eta² + drift eta <= c + what the
    diffusion damps there; under steady forcing T has its poles where that reaches the decay; exp(i k n) grows to
    exp(eta n).
    """
    floor = torch.where(other > 0, own - cross**2 / other, own).clamp(min=0)
    width = math.pi * 0.5 ** torch.arange(1, HALVINGS + 2, dtype=torch.float64, device="cpu")[:, None]
    growth = torch.tensor(
        [0.0] if forcing == "steady" else [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0], dtype=torch.float64, device="cpu"
    )
    growth = growth[:, None, None]

    def nodes(width: Tensor, lowest: Tensor) -> Tensor:
        bound = floor * lowest**2 + growth
        if forcing == "steady":
            bound = 0.9 * (bound + decay)
        height = 2 * bound / (drift + (drift**2 + 4 * own.clamp(min=0) * bound).sqrt()).clamp(min=1e-300)
        largest = torch.asinh(2 * height / width).clamp(max=STEEPEST)
        sizes = largest[..., None] * torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64, device="cpu")
        cost = digits + 3 + growth[..., None] + length * width[..., None] / 2 * sizes.sinh()
        return (cost / (2 * sizes)).amin((0, -1)).ceil() + 2

    return nodes(width, width / 2), nodes(2 * width, torch.zeros_like(width))


class _Layout:
    """How many nodes the panels along both axes need for each kernel (kernels,), in float64 on the CPU."""

    def __init__(self, coefficients: Coefficients, height: int, width: int, forcing: str, like: Tensor) -> None:
        given = [value for value in vars(coefficients).values() if value is not None]
        zero = torch.zeros(given[0].numel(), dtype=torch.float64, device="cpu")

        def numbers(value: Tensor | None) -> Tensor:
            # What is not finite is not to be integrated: it shows in the kernel.
            return zero if value is None else value.detach().flatten().cpu().double().nan_to_num(0.0, 0.0, 0.0)

        c = coefficients
        kyy, kxx, kxy, vy, vx, r = map(numbers, (c.kyy, c.kxx, c.kxy, c.vy, c.vx, c.r))
        digits = _digits(like)
        self._axes = (
            _orders(height, kyy, kxx, kxy, vy.abs(), -r, forcing, digits),
            _orders(width, kxx, kyy, kxy, vx.abs(), -r, forcing, digits),
        )

    def beyond(self) -> Tensor:
        """Which kernels need more wave numbers than are computed."""
        rows, columns = (self._totals(*axis).amin(0) for axis in self._axes)
        return 2 * rows * columns > MOST_POINTS

    def rules(self, kernels: slice) -> tuple[list[Rule], list[Rule]]:
        """Panels (low, high, nodes) over [0, pi] along each axis that serve all `kernels`."""
        made: list[list[Rule]] = []
        for axis in self._axes:
            outer, inner = (orders[:, kernels].amax(1, keepdim=True) for orders in axis)
            halvings = int(self._totals(outer, inner).argmin())
            edge = math.pi * 0.5**halvings
            panels = [(math.pi * 0.5 ** (j + 1), math.pi * 0.5**j, int(outer[j])) for j in range(halvings)]
            made.append([(0.0, edge, int(inner[halvings])), *reversed(panels)])
        return made[0], made[1]

    @staticmethod
    def _totals(outer: Tensor, inner: Tensor) -> Tensor:
        """Nodes over [0, pi] with 0, 1, … halvings."""
        return torch.cat([torch.zeros_like(outer[:1]), outer.cumsum(0)[:-1]]) + inner


def reaches_too_far(coefficients: Coefficients, height: int, width: int, forcing: str, like: Tensor) -> bool:
    """Whether a kernel needs more wave numbers than are computed."""
    return not valueless(like) and bool(_Layout(coefficients, height, width, forcing, like).beyond().any())


@untraced
def summed_plane_kernel(coefficients: Coefficients, weight: Tensor, height: int, width: int, forcing: str) -> Tensor:
    """Weighted sum over states of responses at all offsets on the grid, in an unbounded plane.

    Args:
        coefficients: each (..., S), S states. Those that are not finite, and those whose kernel would take more than
            `MOST_POINTS` wave numbers, give NaN.
        weight: (..., R, S).
        height: H, in pixels.
        width: W, in pixels.
        forcing: what the input is.

    Returns:
        (..., R, 2H - 1, 2W - 1).
    """
    given = {name: value for name, value in vars(coefficients).items() if value is not None}
    *lead, states = next(iter(given.values())).shape
    weight = weight.expand(*lead, *weight.shape[-2:]).reshape(-1, *weight.shape[-2:])
    flat = {name: value.reshape(-1, states) for name, value in given.items()}
    poison = 0 * torch.stack(list(flat.values())).sum(0)
    rules, step = _ANY_RULES, len(weight)
    layout: _Layout | None = None
    if not valueless(weight):
        layout = _Layout(Coefficients(**flat), height, width, forcing, weight)
        beyond = layout.beyond().view(-1, states).to(weight.device)
        if bool(beyond.any()):
            poison = poison.masked_fill(beyond, math.nan)
            flat = {name: value.masked_fill(beyond, -1.0 if name == "r" else 0.0) for name, value in flat.items()}
            layout = _Layout(Coefficients(**flat), height, width, forcing, weight)
        step = max(1, _most_points(weight) // (states * _points(layout.rules(slice(None)))))
    pieces = []
    for first in range(0, len(weight), step):
        kernels = slice(first, first + step)
        if layout is not None:
            rules = layout.rules(slice(first * states, (first + step) * states))
        some = {name: value[kernels] for name, value in flat.items()}
        pieces.append(_piece(some, weight[kernels], rules, height, width, forcing))
    kernel = torch.cat(pieces) + (weight * poison[:, None]).sum(-1)[..., None, None]
    return kernel.view(*lead, *kernel.shape[1:])


def _points(rules: tuple[list[Rule], list[Rule]]) -> int:
    """Wave numbers of a kernel on the half plane."""
    rows, columns = (sum(nodes for *_, nodes in axis) for axis in rules)
    return 2 * rows * columns


def _most_points(like: Tensor) -> int:
    """Wave numbers, of all kernels together, that a piece may have."""
    return PIECE_BYTES // (BYTES_PER_POINT * like.element_size())


def _piece(
    coefficients: dict[str, Tensor],
    weight: Tensor,
    rules: tuple[list[Rule], list[Rule]],
    height: int,
    width: int,
    forcing: str,
) -> Tensor:
    """`summed_plane_kernel` of a few channels, by some rows of wave numbers at a time."""
    (ky, weight_y), (k, weight_k) = (_quadrature(axis, weight) for axis in rules)
    kx, weight_x = torch.cat([-k.flip(0), k]), torch.cat([weight_k.flip(0), weight_k])
    rows = max(1, _most_points(weight) // (next(iter(coefficients.values())).numel() * len(kx)))
    total = weight.new_zeros(*weight.shape[:2], 2 * height - 1, 2 * width - 1)
    make = partial(_rows, tuple(coefficients), forcing, height, width)
    for some, share in zip(ky.split(rows), weight_y.split(rows), strict=True):
        total = total + _again(make, some, share, kx, weight_x, weight, *coefficients.values())
    return total


def _rows(
    names: tuple[str, ...], forcing: str, height: int, width: int, ky: Tensor, weight_y: Tensor, kx: Tensor,
    weight_x: Tensor, weight: Tensor, *values: Tensor,
) -> Tensor:  # fmt: skip
    response = respond(symbol(Coefficients(**dict(zip(names, values, strict=True))), (ky, kx)), forcing)
    summed = torch.complex(*(torch.einsum("grs,gsyx->gryx", weight, part) for part in (response.real, response.imag)))

    def waves(k: Tensor, share: Tensor, length: int) -> Tensor:
        phase = k[:, None] * _offsets(length, weight)
        return torch.polar((share / math.pi)[:, None].expand_as(phase), phase)

    # Half of the plane: the other one's part is its conjugate.
    along_x = summed @ (waves(kx, weight_x, width) / 2)
    return (waves(ky, weight_y, height).mT @ along_x).real
