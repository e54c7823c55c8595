"""What a mixer does to a grid, as numbers to draw: impulse response, receptive field, spectrum, error under rotation.

All functions take any mixer, from this package or another one, on any grid that it serves. They call the mixer as it
stands: in its shell, with its parameters, in their dtype and on their device. In the shell `operators.BARE` they show
the core alone.
"""

from __future__ import annotations

import math
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.errors import InputError
from operators.mixer import Mixer

AFFINE_TOLERANCE = 1e-3
"""Largest relative difference of two impulse responses, on two backgrounds, of a mixer that counts as affine. Float32
rounding stays below 1e-5; a gate or a softmax changes the response by more than a tenth."""


def impulse_response(
    mixer: Mixer,
    grid: tuple[int, int],
    *,
    at: tuple[int, int] | None = None,
    channel: int | None = None,
    size: float = 1.0,
    background: Tensor | None = None,
    cond: Tensor | None = None,
) -> Tensor:
    """Change of the output per unit of a pulse at one token, (H, W, C).

    It is the symmetric difference (y(b + s e) − y(b − s e)) / 2s for a background b and a pulse e of size s. For a
    mixer that is affine in its input this is the kernel, whatever b and s are. For any other mixer it depends on both,
    and tends to the derivative as s goes to 0.

    Args:
        mixer: the mixer.
        grid: (H, W), in tokens.
        at: row and column of the pulse; None for (H // 2, W // 2).
        channel: the channel that the pulse is in; None for all channels at once.
        size: height s of the pulse, positive.
        background: input b, (H, W, C); None for zeros.
        cond: conditioning vector (cond_dim,), for mixers that need one.

    Raises:
        InputError: a token outside the grid, a channel that does not exist, a background of another shape, a grid or a
            conditioning vector that the mixer refuses.
    """
    row, column = _token(grid, at)
    if channel is not None and not 0 <= channel < mixer.dim:
        raise InputError(f"channel={channel} does not exist: allowed are 0 to {mixer.dim - 1}")
    if not size > 0:
        raise InputError(f"size={size} of a pulse must be positive")
    base = _zeros(mixer, (1, *grid, mixer.dim))
    if background is not None:
        if background.shape != base.shape[1:]:
            raise InputError(f"background must have the shape {tuple(base.shape[1:])}, not {tuple(background.shape)}")
        base = base + background
    pulse = torch.zeros_like(base)
    pulse[:, row, column, slice(None) if channel is None else channel] = size
    with torch.no_grad():
        above, below = (mixer(x, _batch(cond, 1)) for x in (base + pulse, base - pulse))
    return ((above - below) / (2 * size))[0]


def receptive_field(
    mixer: Mixer,
    grid: tuple[int, int],
    *,
    at: tuple[int, int] | None = None,
    samples: int = 8,
    seed: int = 0,
    cond: Tensor | None = None,
) -> Tensor:
    """Effective receptive field of one output token: mean squared gradient with respect to every input token, (H, W).

    Entry (i, j) estimates the mean over inputs and output channels c of ‖∂y_c(at) / ∂x(i, j)‖², the squared norm being
    over input channels. Inputs are standard normal; each is probed with one random vector of signs over the output
    channels, which is exact for mixers that keep channels apart. The identity has 1 at `at` and 0 elsewhere.

    Args:
        mixer: the mixer.
        grid: (H, W), in tokens.
        at: row and column of the output token; None for (H // 2, W // 2).
        samples: number of random inputs.
        seed: of the inputs and signs; the global generator stays as it is.
        cond: conditioning vector (cond_dim,), for mixers that need one.

    Raises:
        InputError: a token outside the grid, no samples, a grid or a conditioning vector that the mixer refuses.

    Source:
        W. Luo, Y. Li, R. Urtasun, R. Zemel, Understanding the effective receptive field in deep convolutional neural
        networks, NeurIPS 2016 (arXiv 1701.04128), section 2; squared, so that gradients of either sign add up.
    """
    row, column = _token(grid, at)
    if samples < 1:
        raise InputError(f"samples={samples} must be at least 1")
    generator = torch.Generator().manual_seed(seed)
    like = _zeros(mixer, (samples, *grid, mixer.dim))
    x = torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device).requires_grad_()
    signs = torch.randint(0, 2, (samples, mixer.dim), generator=generator).to(like) * 2 - 1
    with torch.enable_grad():
        y = mixer(x, _batch(cond, samples))
        (gradient,) = torch.autograd.grad((y[:, row, column] * signs).sum(), x)
    return gradient.square().sum(-1).mean(0) / mixer.dim


def spectrum(mixer: Mixer, grid: tuple[int, int], *, cond: Tensor | None = None) -> Tensor:
    """Transfer function G(k) of a translation-equivariant affine mixer, complex, (H, W, C).

    A wave exp(i k·r) of all channels leaves the mixer as G(k) exp(i k·r): |G| is the gain, the angle the shift. The
    wave numbers are those of `torch.fft.fft2`, 2π `torch.fft.fftfreq` radians per token along each axis. Where
    equivariance ends at the border (`translation_equivariant="interior"`), G is that of the inside, if the kernel fits
    the grid.

    Raises:
        InputError: a mixer that is not translation-equivariant by its card, or whose response depends on its input; and
            what `impulse_response` refuses.
    """
    name = mixer.card.name
    if mixer.card.translation_equivariant is None:
        raise InputError(f"mixer {name} has no spectrum: it is not translation-equivariant")
    response = impulse_response(mixer, grid, cond=cond)
    noise = torch.randn(response.shape, generator=torch.Generator().manual_seed(0), dtype=response.dtype)
    again = impulse_response(mixer, grid, background=noise.to(response.device), cond=cond)
    if (again - response).norm() > AFFINE_TOLERANCE * response.norm():
        raise InputError(f"mixer {name} has no spectrum in this shell: its response depends on its input")
    centred = response.roll((-(grid[0] // 2), -(grid[1] // 2)), (0, 1))
    return torch.fft.fft2(centred.to(torch.promote_types(centred.dtype, torch.float32)), dim=(0, 1))


def rotated(x: Tensor, degrees: float) -> Tensor:
    """Turn x (B, n, n, C) counter-clockwise about the centre of its grid.

    Multiples of 90 degrees move tokens, exactly. Other angles interpolate bilinearly, and what comes from outside the
    grid is zero.
    """
    if degrees % 90 == 0:
        return x.rot90(round(degrees / 90), (1, 2))
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # where each token of the result comes from; the second coordinate points down
    back = x.new_tensor([[cos, -sin, 0], [sin, cos, 0]]).expand(len(x), -1, -1)
    channels_first = x.movedim(-1, 1)
    places = F.affine_grid(back, list(channels_first.shape), align_corners=False)
    return F.grid_sample(channels_first, places, align_corners=False).movedim(1, -1)


def rotation_error(mixer: Mixer, x: Tensor, degrees: float, *, cond: Tensor | None = None) -> float:
    """How far a mixer is from rotation-equivariant: ‖f(R x) - R f(x)‖ / ‖R f(x)‖, R turning by `degrees`.

    At multiples of 90 degrees the whole grid counts, R is exact and its norm 1. At other angles x is first set to zero
    outside the circle that the grid holds, and only the inside counts. Interpolation is an error of its own there: an
    equivariant mixer that is not linear shows how much of it. It is small for an x that changes little between tokens.

    Args:
        mixer: the mixer.
        x: inputs (B, n, n, C).
        degrees: the angle.
        cond: conditioning vector (cond_dim,), for mixers that need one.

    Raises:
        InputError: a grid that is not square, or what the mixer refuses.
    """
    if x.ndim != 4 or x.shape[1] != x.shape[2]:
        raise InputError(
            f"x must have the shape (B, n, n, C), not {tuple(x.shape)}: only square grids turn onto themselves"
        )
    inside = torch.ones_like(x[0, :, :, :1])
    if degrees % 90:
        along = torch.arange(x.shape[1], device=x.device) - (x.shape[1] - 1) / 2
        inside = (torch.hypot(along[:, None], along) <= x.shape[1] / 2)[..., None].to(x)
    x = x * inside
    with torch.no_grad():
        after, before = (mixer(given, _batch(cond, len(x))) for given in (x, rotated(x, degrees)))
    turned = rotated(after, degrees) * inside
    return float((before * inside - turned).norm() / turned.norm())


def _token(grid: tuple[int, int], at: tuple[int, int] | None) -> tuple[int, int]:
    row, column = (grid[0] // 2, grid[1] // 2) if at is None else at
    if not (0 <= row < grid[0] and 0 <= column < grid[1]):
        raise InputError(f"at={(row, column)} lies outside the grid {tuple(grid)}")
    return row, column


def _zeros(mixer: Mixer, shape: tuple[int, ...]) -> Tensor:
    """Zeros in the dtype and on the device of the mixer's floating-point numbers; torch's defaults if it has none."""
    for tensor in chain(mixer.parameters(), mixer.buffers()):
        if tensor.is_floating_point():
            return tensor.new_zeros(shape, requires_grad=False)
    return torch.zeros(shape)


def _batch(cond: Tensor | None, size: int) -> Tensor | None:
    return None if cond is None else cond.expand(size, -1)
