import pytest
import torch

from operators.lti import roesser
from operators.testing.cases import noise
from operators.testing.checks import assert_close

WIDTH, STATES = 2, 3


def drawn(complex_states=False):
    A, B, C = (noise(n, WIDTH, STATES, dtype=torch.float64, seed=n) for n in (4, 2, 3))
    A, B, C = A.sigmoid(), B.sigmoid(), C[:2]
    if complex_states:
        A, B, C = (part * torch.polar(torch.ones_like(part), 3 * part.flip(-1)) for part in (A, B, C))
    return A.unbind(), B.unbind(), C.unbind()


def kernel(A, B, C, grid, share):
    h, v = roesser.states(A, B, *grid, share)
    y = (C[0] * h + C[1] * v).sum(-1)
    return y.real if y.is_complex() else y


def layer(A, B, C, height, width):
    """As the layer's authors write down its kernel: place by place, halved where both parts come together."""
    (a1, a2, a3, a4), zero = A, torch.zeros_like(B[0])
    h, v = {(0, 0): B[0]}, {(0, 0): B[1]}

    def step(place, first, second):
        both = (place[0] > 0) == (place[1] > 0)
        there = h.get(place, zero), v.get(place, zero)
        return (first * there[0] + second * there[1]) * (0.5 if both else 1)

    y = torch.zeros(height, width, WIDTH, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            if j:
                h[i, j] = step((i, j - 1), a1, a2)
            if i:
                v[i, j] = step((i - 1, j), a3, a4)
            total = (C[0] * h.get((i, j), zero) + C[1] * v.get((i, j), zero)).sum(-1)
            y[i, j] = total * (2 if (i == 0) != (j == 0) else 1)
    return y


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (5, 1), (2, 2), (4, 6), (6, 3)], ids=str)
def test_kernels_are_those_of_the_layer_place_by_place(grid):
    A, B, C = drawn()
    assert_close(kernel(A, B, C, grid, 0.5), layer(A, B, C, *grid), 1e-12, "kernel")


@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("complex_states", [False, True])
def test_the_recurrence_of_an_image_is_the_convolution_with_the_kernel(complex_states, share):
    A, B, C = drawn(complex_states)
    grid = height, width = 4, 5
    u, made = noise(2, *grid, WIDTH, dtype=torch.float64), kernel(A, B, C, grid, share)
    expected = torch.zeros_like(u)
    for i in range(height):
        for j in range(width):
            for k in range(i + 1):
                for m in range(j + 1):
                    expected[:, i, j] += made[i - k, j - m] * u[:, k, m]
    assert_close(roesser.run(A, B, C, u, share), expected, 1e-12, "y")


def test_a_share_of_one_is_the_recurrence_of_roesser():
    (a1, a2, a3, a4), (b1, b2), (c1, c2) = drawn()
    grid, u = (4, 5), noise(2, 4, 5, WIDTH, dtype=torch.float64)
    zero = torch.zeros(2, WIDTH, STATES, dtype=torch.float64)
    h, v = {}, {}
    y = torch.zeros_like(u)
    for i in range(grid[0]):
        for j in range(grid[1]):
            here = u[:, i, j, :, None]
            h[i, j] = a1 * h.get((i, j - 1), zero) + a2 * v.get((i, j - 1), zero) + b1 * here
            v[i, j] = a3 * h.get((i - 1, j), zero) + a4 * v.get((i - 1, j), zero) + b2 * here
            y[:, i, j] = (c1 * h[i, j] + c2 * v[i, j]).sum(-1)
    assert_close(roesser.run((a1, a2, a3, a4), (b1, b2), (c1, c2), u, 1.0), y, 1e-12, "y")


def test_transposing_the_image_exchanges_both_parts():
    A, B, C = drawn()
    turned = kernel(A[::-1], B[::-1], C[::-1], (6, 4), 0.5)
    assert_close(turned, kernel(A, B, C, (4, 6), 0.5).transpose(0, 1), 1e-12, "kernel")
