"""Arrows from recurrences over both axes of a grid."""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import torch
import torch.nn.functional as F

from operators import scan
from tests.operators.mixers.drawn import assert_same_function, image, make, set_to

GRID = (4, 5)
SIZE = 3
BACKEND = "diagonals"
"""Compiles nothing."""


def constant(branch, x):
    """Let a branch have the steps and maps of one token everywhere; they are returned."""
    with torch.no_grad():
        token = branch.arguments(x[:1, :1, :1])
    branch.arguments = lambda v: {
        name: part if part.ndim == 2 else part.expand(*v.shape[:3], -1) for name, part in token.items()
    }
    return {name: part if part.ndim == 2 else part[0, 0, 0] for name, part in token.items()}


def convolved(x, kernel):
    """Each channel with a kernel (H, W, D) of lags down and to the right."""
    height, width = x.shape[1:3]
    padded = F.pad(x.movedim(-1, 1), (width - 1, 0, height - 1, 0))
    filters = kernel.flip(0, 1).movedim(-1, 0)[:, None]
    return F.conv2d(padded, filters, groups=x.shape[-1]).movedim(1, -1)


def inner(function):
    """A function of what an image holds beyond its first row and column, which are zero."""
    return lambda x: function(F.pad(x, (0, 0, 1, 0, 1, 0)))[:, 1:, 1:]


def mamba2d_with_constant_maps_is_a_binomial_lattice():
    """A unit has binom(m + n, m) ways over m rows and n columns, each a product of halved transitions."""
    mixer = make("mamba2d", corners=["top_left"], state_dim=SIZE, backend=BACKEND)
    (branch,) = mixer.core.branches
    x = image(*GRID)
    p = constant(branch, x)
    right, down = (p["dt_row"][:, None] * p["A_row"]).exp() / 2, (p["dt_col"][:, None] * p["A_col"]).exp() / 2
    source = (p["dt_row"][:, None] * p["B_row"] + p["dt_col"][:, None] * p["B_col"]) / 2
    kernel = torch.stack(
        [
            torch.stack([(comb(m + n, m) * down**m * right**n * source * p["C"]).sum(-1) for n in range(GRID[1])])
            for m in range(GRID[0])
        ]
    )
    assert_same_function(inner(mixer), lambda x: convolved(x, kernel) + branch.D * x, x)


def two_d_mamba_with_a_constant_transition_is_a_separable_kernel():
    """The transition to the power of rows and columns together."""
    mixer = make("two_d_mamba", orders=["row"], state_dim=SIZE, backend=BACKEND)
    (branch,) = mixer.core.branches
    x = image(*GRID)
    p = constant(branch, x)
    a, source = (p["dt"][:, None] * p["A"]).exp(), p["dt"][:, None] * p["B"] * p["C"]
    lags = torch.arange(GRID[0])[:, None] + torch.arange(GRID[1])
    kernel = (a ** lags[..., None, None] * source).sum(-1)
    assert_same_function(mixer, lambda x: convolved(x, kernel) + branch.D * x, x)


def chimera_without_coupling_is_a_row_scan_and_a_column_scan():
    mixer = make("chimera", corners=["top_left"], state_dim=SIZE, coupling=0.0, backend=BACKEND)
    (branch,) = mixer.core.branches

    def lines(x, dt, A, B, C):
        given = (part.flatten(0, 1).mT for part in (x, dt, B, C))
        u, dt, B, C = given
        return scan.selective_scan(u, dt, A, B, C, backend="reference").mT.unflatten(0, x.shape[:2])

    def apart(x):
        p = branch.arguments(x)
        along = lines(x, p["dt_row"], p["A_1"], p["B_row"], p["C_row"])
        turned = (part.transpose(1, 2) for part in (x, p["dt_col"], p["B_col"], p["C_col"]))
        v, dt, B, C = turned
        return along + lines(v, dt, p["A_4"], B, C).transpose(1, 2) + branch.D * x

    assert_same_function(mixer, apart, image(*GRID))


def chimera_with_constant_maps_is_the_two_dimensional_state_space():
    """Of channels that have transitions of their own, from one corner, without normalisation."""
    chimera = make("chimera", corners=["top_left"], state_dim=SIZE, coupling=0.3, backend=BACKEND)
    (branch,) = chimera.core.branches
    p = constant(branch, image(*GRID))
    row, column = p["dt_row"][:, None], p["dt_col"][:, None]
    A = [0.7 * (row * p["A_1"]).exp(), 0.3 * (row * p["A_2"]).exp()]
    A += [0.3 * (column * p["A_3"]).exp(), 0.7 * (column * p["A_4"]).exp()]
    B = [row * p["B_row"], column * p["B_col"]]
    C = [p["C_row"].expand_as(B[0]), p["C_col"].expand_as(B[1])]
    states = make("ssm2d", directions=1, state_dim=SIZE, n_ssm=None, share=1.0, residual=True)
    states.core.maps = lambda: tuple(torch.stack(parts)[:, None] for parts in (A, B, C))
    set_to(branch.D, states.core.D)
    assert_same_function(chimera, states, image(*GRID))


ARROWS: list[tuple[str, Callable[[], None]]] = [
    ("2DMamba, constant a -> separable kernel", two_d_mamba_with_a_constant_transition_is_a_separable_kernel),
    ("Chimera, constant dt, B, C -> 2-D SSM", chimera_with_constant_maps_is_the_two_dimensional_state_space),
    ("Chimera, A2 = A3 = 0 -> row scan + column scan", chimera_without_coupling_is_a_row_scan_and_a_column_scan),
    ("Mamba2D, constant transitions -> binomial lattice kernel", mamba2d_with_constant_maps_is_a_binomial_lattice),
]
