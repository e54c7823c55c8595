"""Compiled code of `operators.pde.matrices_op`: matrices of one axis from their coefficients, and the gradients back.

Along an axis of period P the response to a point is a sum of waves k = 0 … 2 pi / P · (P // 2),

    h[n] = sum over k of share(k) (cos(k n) a_k + sin(k n) b_k),    a_k + i b_k = gain exp(-K k² + i v k),

and the matrix holds h[i - j], to which `neumann` adds and from which `dirichlet` takes the image behind the edge,
h[i + j + 1]. Vectors run over channels.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from operators.cpu.compilation import inner
from operators.cpu.exponential import exp
from operators.cpu.kernel import Flat, kernel


class MatricesForward(NamedTuple):
    """A task is an axis, a state and `chunk` channels; those of the first axis come first.

    numbers (6, S, D): diffusion, velocity and gain of the first axis and of the second in turn. row_waves (2, P) and
    column_waves: the cosine and the sine of n turns' P-th part. `row_sign` and `column_sign`: those of the image behind
    the edge. Written: rows (S, H, H, D) and columns (S, W, W, D).
    """

    numbers: Flat
    row_waves: Flat
    column_waves: Flat
    rows: Flat
    columns: Flat
    height: int
    width: int
    row_sign: int
    column_sign: int
    states: int
    channels: int
    chunk: int


class MatricesBackward(NamedTuple):
    """As `MatricesForward`, with the gradients of rows and columns; written: grad_numbers (6, S, D)."""

    numbers: Flat
    row_waves: Flat
    column_waves: Flat
    grad_rows: Flat
    grad_columns: Flat
    grad_numbers: Flat
    height: int
    width: int
    row_sign: int
    column_sign: int
    states: int
    channels: int
    chunk: int


@inner
def _turn(real: Any, imaginary: Any, by_real: Any, by_imaginary: Any) -> None:
    for c in range(len(real)):
        turned = real[c] * by_real[c] - imaginary[c] * by_imaginary[c]
        imaginary[c] = real[c] * by_imaginary[c] + imaginary[c] * by_real[c]
        real[c] = turned


@inner(fastmath={"contract"})
def _damp(real: Any, imaginary: Any, diffusion: Any, square: Any, cosine: Any, sine: Any) -> None:
    kind = diffusion.dtype.type
    for c in range(len(diffusion)):
        left = exp(-diffusion[c] * square)
        cosine[c] = kind(real[c]) * left
        sine[c] = kind(imaginary[c]) * left


@inner
def _amplitudes(diffusion: Any, velocity: Any, period: int, cosine: Any, sine: Any) -> None:
    """cosine[k, c] + i sine[k, c] = exp(-K k² + i v k), turned from wave to wave in float64."""
    step = 2 * math.pi / period
    real, imaginary = np.ones(len(velocity)), np.zeros(len(velocity))
    by_real, by_imaginary = np.empty(len(velocity)), np.empty(len(velocity))
    for c in range(len(velocity)):
        by_real[c], by_imaginary[c] = math.cos(step * velocity[c]), math.sin(step * velocity[c])
    for k in range(len(cosine)):
        _damp(real, imaginary, diffusion, diffusion.dtype.type((step * k) ** 2), cosine[k], sine[k])
        _turn(real, imaginary, by_real, by_imaginary)


@inner(fastmath={"contract"})
def _add_both(even: Any, odd: Any, cosine: Any, sine: Any, by_cosine: Any, by_sine: Any) -> None:
    for c in range(len(even)):
        even[c] += by_cosine * cosine[c]
        odd[c] += by_sine * sine[c]


@inner
def _transform(cosine: Any, sine: Any, waves: Any, even: Any, odd: Any) -> None:
    """even[n] = sum over k of cos(k n) cosine[k], odd[n] = sum over k of sin(k n) sine[k], for n and k up to P // 2.

    waves: see `MatricesForward`. The map is its own transpose.
    """
    period = len(waves) // 2
    cosines, sines = waves[:period], waves[period:]
    for n in range(len(even)):
        even[n], odd[n] = 0, 0
        turn = 0  # k n modulo the period
        for k in range(len(cosine)):
            _add_both(even[n], odd[n], cosine[k], sine[k], cosines[turn], sines[turn])
            turn += n if turn + n < period else n - period


@inner(fastmath={"contract"})
def _combine(target: Any, left: Any, right: Any, sign: Any) -> None:
    for c in range(len(target)):
        target[c] = left[c] + sign * right[c]


@inner(fastmath={"contract"})
def _scale(rows: Any, factors: Any, number: Any) -> None:
    for c in range(len(factors)):
        rows[c] *= factors[c] * number


@inner(fastmath={"contract"})
def _add(target: Any, source: Any, sign: Any) -> None:
    for c in range(len(target)):
        target[c] += sign * source[c]


@inner(fastmath={"contract"})
def _collect(
    cosine: Any, sine: Any, of_cosine: Any, of_sine: Any, gain: Any, part: Any, k: Any,
    spread: Any, turn: Any, growth: Any,
) -> None:  # fmt: skip
    """Add a wave's share of the gradients of diffusion, velocity and gain; its amplitude is cosine + i sine."""
    for c in range(len(gain)):
        along = part * (of_cosine[c] * cosine[c] + of_sine[c] * sine[c])
        across = part * (of_sine[c] * cosine[c] - of_cosine[c] * sine[c])
        spread[c] -= gain[c] * k * k * along
        turn[c] += gain[c] * k * across
        growth[c] += along


@inner
def _share(k: int, period: int, sign: int) -> float:
    """Of a wave and its conjugate together, in an inverse transform.

    Constants cancel against an odd image: left out, they take no digits from waves that have decayed.
    """
    if k == 0:
        return 0.0 if sign < 0 else 1.0 / period
    return (1.0 if 2 * k == period else 2.0) / period


@inner
def _part(task: int, states: int, channels: int, chunk: int) -> tuple[int, int, int]:
    """State, first channel and number of channels of an axis' task."""
    place, state = divmod(task, states)
    return state, place * chunk, min(chunk, channels - place * chunk)


@inner
def _three(numbers: Any, axis: int, states: int, channels: int, state: int, first: int, n: int) -> tuple[Any, Any, Any]:
    """Diffusion, velocity and gain of n channels of a state, along an axis, in numbers (6, S, D), which is flat."""
    at, step = (axis * states + state) * channels + first, 2 * states * channels
    return numbers[at : at + n], numbers[at + step : at + step + n], numbers[at + 2 * step : at + 2 * step + n]


@inner
def _pair(rows: int, columns: int, dtype: Any) -> tuple[Any, Any]:
    return np.empty((rows, columns), dtype), np.empty((rows, columns), dtype)


@inner(once=True)
def _matrix(
    numbers: Any, waves: Any, length: int, sign: int, axis: int, states: int, channels: int, chunk: int, task: int,
    matrix: Any,
) -> None:  # fmt: skip
    """The matrices (S, length, length, D) of `axis`, in matrix (flat), for a state and `chunk` channels."""
    state, first, n = _part(task, states, channels, chunk)
    diffusion, velocity, gain = _three(numbers, axis, states, channels, state, first, n)
    period = len(waves) // 2
    half = period // 2 + 1
    (cosine, sine), (even, odd) = _pair(half, n, numbers.dtype), _pair(half, n, numbers.dtype)
    response = np.empty((period, n), numbers.dtype)
    kind = numbers.dtype.type
    _amplitudes(diffusion, velocity, period, cosine, sine)
    for k in range(half):
        _scale(cosine[k], gain, kind(_share(k, period, sign)))
        _scale(sine[k], gain, kind(_share(k, period, sign)))
    _transform(cosine, sine, waves, even, odd)
    for offset in range(half):
        _combine(response[-offset], even[offset], odd[offset], kind(-1))
        _combine(response[offset], even[offset], odd[offset], kind(1))
    for i in range(length):
        for j in range(length):
            to = ((state * length + i) * length + j) * channels + first
            _combine(matrix[to : to + n], response[(i - j) % period], response[(i + j + 1) % period], kind(sign))


@inner(once=True)
def _gradients(
    numbers: Any, waves: Any, length: int, sign: int, axis: int, states: int, channels: int, chunk: int, task: int,
    gradient: Any, grad_numbers: Any,
) -> None:  # fmt: skip
    """Gradients of `numbers` from that of the matrices, with the arguments of `_matrix`."""
    state, first, n = _part(task, states, channels, chunk)
    diffusion, velocity, gain = _three(numbers, axis, states, channels, state, first, n)
    period = len(waves) // 2
    half = period // 2 + 1
    (cosine, sine), (even, odd) = _pair(half, n, numbers.dtype), _pair(half, n, numbers.dtype)
    response = np.zeros((period, n), numbers.dtype)
    kind = numbers.dtype.type
    for i in range(length):
        for j in range(length):
            of = ((state * length + i) * length + j) * channels + first
            _add(response[(i - j) % period], gradient[of : of + n], kind(1))
            if sign != 0:
                _add(response[(i + j + 1) % period], gradient[of : of + n], kind(sign))
    # An offset and its opposite share their waves; zero and half a period are their own opposites.
    for offset in range(half):
        alone = offset == 0 or 2 * offset == period
        _combine(even[offset], response[offset], response[-offset], kind(0 if alone else 1))
        _combine(odd[offset], response[offset], response[-offset], kind(0 if alone else -1))
    of_cosine, of_sine = _pair(half, n, numbers.dtype)
    _transform(even, odd, waves, of_cosine, of_sine)
    _amplitudes(diffusion, velocity, period, cosine, sine)
    spread, turn, growth = _three(grad_numbers, axis, states, channels, state, first, n)
    spread[:], turn[:], growth[:] = 0, 0, 0
    for k in range(half):
        share = kind(_share(k, period, sign))
        wave = kind(2 * math.pi / period * k)
        _collect(cosine[k], sine[k], of_cosine[k], of_sine[k], gain, share, wave, spread, turn, growth)


@inner
def _axis_and_part(task: int, states: int, channels: int, chunk: int) -> tuple[int, int]:
    return divmod(task, states * ((channels + chunk - 1) // chunk))


@kernel
def forward(k: MatricesForward, low: int, high: int) -> None:
    """Write the matrices of each task's channels."""
    for task in range(low, high):
        axis, part = _axis_and_part(task, k.states, k.channels, k.chunk)
        waves, matrix, length, sign = k.row_waves, k.rows, k.height, k.row_sign
        if axis == 1:
            waves, matrix, length, sign = k.column_waves, k.columns, k.width, k.column_sign
        _matrix(k.numbers, waves, length, sign, axis, k.states, k.channels, k.chunk, part, matrix)


@kernel
def backward(k: MatricesBackward, low: int, high: int) -> None:
    """Write the gradients of each task's coefficients."""
    for task in range(low, high):
        axis, part = _axis_and_part(task, k.states, k.channels, k.chunk)
        waves, gradient, length, sign = k.row_waves, k.grad_rows, k.height, k.row_sign
        if axis == 1:
            waves, gradient, length, sign = k.column_waves, k.grad_columns, k.width, k.column_sign
        _gradients(
            k.numbers, waves, length, sign, axis, k.states, k.channels, k.chunk, part, gradient, k.grad_numbers
        )  # fmt: skip
