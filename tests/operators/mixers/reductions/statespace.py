"""Arrows from time-invariant state spaces, and to them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

import operators
from tests.operators.mixers.drawn import assert_same_function, image, make, set_to

GRIDS = ((4, 5), (3, 7))


def s4_of_rank_zero_is_s4d():
    """Λ alone: C (1 − w^L) B of the one is C of the other, with the w of the bilinear rule."""
    for grid in GRIDS:
        low_rank, diagonal = make("s4", grid=grid, state_dim=3), make("s4d", rule="bilinear", state_dim=3)
        (general,), (special,) = low_rank.core.systems, diagonal.core.systems
        set_to(0.0, general.P)
        for name in ("A_log", "A_imag", "log_step"):
            set_to(getattr(general, name), getattr(special, name))
        set_to(low_rank.core.D, diagonal.core.D)
        z = torch.complex(-general.A_log.exp(), general.A_imag) * general.log_step.exp()[:, None]
        power = ((1 + z / 2) / (1 - z / 2)) ** (grid[0] * grid[1])
        readout = torch.view_as_complex(general.C) * torch.view_as_complex(general.B) / (1 - power)
        set_to(torch.view_as_real(readout), special.C)
        assert_same_function(low_rank, diagonal, image(*grid), 1e-11)


def transitions(system):
    """w (D, S) of zero-order hold, complex."""
    A = torch.complex(-system.A_log.exp(), system.A_imag)
    return (A.repeat(len(system.log_step) // len(A), 1) * system.log_step.exp()[:, None]).exp()


def gfnet_of_a_padded_image_is_s4nd():
    """On twice the grid, with the transform of the kernel by offset, D at offset 0."""
    for grid in GRIDS:
        height, width = grid
        states = make("s4nd", state_dim=3, tensor_rank=2)
        torch.manual_seed(1)
        filtering = operators.create("gfnet", 6, grid=(2 * height, 2 * width), shell=operators.BARE).double()
        shown = states.inspect(image(*grid))["kernel"]
        circular = torch.zeros(6, 2 * height, 2 * width, dtype=shown.dtype)
        circular[:, : 2 * height - 1, : 2 * width - 1] = shown
        spectrum = torch.fft.rfft2(circular.roll((1 - height, 1 - width), (1, 2)))
        set_to(torch.view_as_real(spectrum).permute(3, 1, 2, 0), filtering.core.filter)

        def padded(x, filtering=filtering, height=height, width=width):
            return filtering(F.pad(x, (0, 0, 0, width, 0, height)))[:, :height, :width]

        assert_same_function(padded, states, image(*grid), 1e-10)


def s4nd_with_a_shifted_backward_kernel_commutes_with_mirrors():
    """C w of the backward kernel is C of the forward one: k_bwd[l − 1] = k_fwd[l]."""
    for grid in GRIDS:
        mixer = make("s4nd", state_dim=3)
        for axis, system in ((1, mixer.core.rows), (2, mixer.core.columns)):
            readout = torch.view_as_complex(system.C[0]) * transitions(system)
            set_to(torch.view_as_real(readout), system.C[1])

            def mirrored(x, mixer=mixer, axis=axis):
                return mixer(x.flip(axis)).flip(axis)

            assert_same_function(mirrored, mixer, image(*grid), 1e-11)


def s4nd_of_one_row_is_s4d():
    """Its kernel along rows, times that along columns at lag 0."""
    many, one = make("s4nd", state_dim=3), make("s4d", state_dim=3, n_ssm=1)
    (system,) = one.core.systems
    for name in ("A_log", "A_imag", "log_step"):
        set_to(getattr(many.core.columns, name), getattr(system, name))
    first = many.core.rows.kernels(1)[0]
    set_to(many.core.columns.C * first[None, :, :, None], system.C)
    set_to(many.core.D, one.core.D)
    assert_same_function(many, one, image(1, 9), 1e-11)


def ssm2d_without_exchange_is_a_row_scan_and_a_column_scan():
    """A2 = A3 = 0, in all directions: h_j = A1 h_{j-1} + B1 u_j, read by C1; down columns by A4, B2, C2."""
    for grid in GRIDS:
        mixer = make("ssm2d", state_dim=3, n_ssm=2, directions=4)
        core = mixer.core
        core.A.data[1:3] = -torch.inf
        A, B, C = core.maps()

        def lines(u, a, b, c):
            """Along the second axis of u (B, L, M, D)."""
            h, outputs = torch.zeros(*u[:, 0].shape, 3, dtype=u.dtype), []
            for token in u.unbind(1):
                h = a.repeat(3, 1) * h + b.repeat(3, 1) * token[..., None]
                outputs.append((c * h).sum(-1))
            return torch.stack(outputs, 1)

        def scans(x, A=A, B=B, C=C, lines=lines):
            total = torch.zeros_like(x)
            for number, axes in enumerate([(), (1,), (2,), (1, 2)]):
                u = x.flip(axes)
                along = lines(u.transpose(1, 2), A[0, number], B[0, number], C[0, number]).transpose(1, 2)
                total = total + (along + lines(u, A[3, number], B[1, number], C[1, number])).flip(axes)
            return total

        assert_same_function(mixer, scans, image(*grid), 1e-11)


def spacetime_without_feedback_is_a_convolution():
    """c holds its taps."""
    mixer = make("spacetime", state_dim=4, bidirectional=False)
    (system,) = mixer.core.systems
    set_to(0.0, system.a)
    set_to(torch.tensor([1.0, 0, 0, 0]), system.b)

    def convolved(x):
        u = F.pad(x.flatten(1, 2).mT, (3, 0))
        y = F.conv1d(u, system.c[0].flip(-1)[:, None], groups=6).mT
        return y.reshape(x.shape) + mixer.core.D * x

    assert_same_function(mixer, convolved, image(4, 5))


def spacetime_that_reads_its_last_state_is_an_autoregression():
    """y_t = Σ_k a_{S−k} y_{t−k} + u_{t−S+1}, a over its absolute sum."""
    mixer = make("spacetime", state_dim=3, bidirectional=False)
    (system,) = mixer.core.systems
    set_to(torch.tensor([1.0, 0, 0]), system.b)
    set_to(torch.tensor([0.0, 0, 1]), system.c)
    a = system.a / system.a.abs().sum(-1, keepdim=True)

    def feedback(x):
        u, outputs = x.flatten(1, 2), []
        for t in range(u.shape[1]):
            y = u[:, t - 2] if t >= 2 else torch.zeros_like(u[:, 0])
            for k in range(1, min(t, 3) + 1):
                y = y + a[:, 3 - k] * outputs[t - k]
            outputs.append(y)
        return torch.stack(outputs, 1).reshape(x.shape) + mixer.core.D * x

    assert_same_function(mixer, feedback, image(4, 5))


ARROWS: list[tuple[str, Callable[[], None]]] = [
    ("S4, P = 0 -> S4D, bilinear", s4_of_rank_zero_is_s4d),
    ("S4ND, one row -> S4D", s4nd_of_one_row_is_s4d),
    ("GFNet, zero-padded input -> S4ND", gfnet_of_a_padded_image_is_s4nd),
    (
        "S4ND, k_bwd[l - 1] = k_fwd[l] -> mirror-symmetric convolution",
        s4nd_with_a_shifted_backward_kernel_commutes_with_mirrors,
    ),
    ("2-D SSM, A2 = A3 = 0 -> row scan + column scan", ssm2d_without_exchange_is_a_row_scan_and_a_column_scan),
    ("SpaceTime, a = 0, b = e_1 -> convolution of state_dim taps", spacetime_without_feedback_is_a_convolution),
    ("SpaceTime, b = e_1, c = e_S -> autoregression", spacetime_that_reads_its_last_state_is_an_autoregression),
]
