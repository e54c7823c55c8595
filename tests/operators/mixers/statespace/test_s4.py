import math

import pytest
import torch

import operators
from operators import InputError
from operators.scan import orders
from operators.testing.cases import run_with_gradients
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.drawn import image, make

WIDTH = 4
SMALL = {"state_dim": 2}


def kernels(system, length):
    """(R, D, N) by powers of dense complex matrices on the states and their conjugates."""
    copies = WIDTH // len(system.A_log)

    def both(half):
        return torch.cat([half, half.conj()], -1)

    P, B = (both(torch.view_as_complex(part)).repeat(copies, 1) for part in (system.P, system.B))
    diagonal = both(torch.complex(-system.A_log.exp(), system.A_imag)).repeat(copies, 1)
    A = torch.diag_embed(diagonal) - P[..., None] * P.conj()[..., None, :]
    step, eye = system.log_step.exp()[:, None], torch.eye(A.shape[-1], dtype=A.dtype)
    left = torch.linalg.inv(eye - A * step[..., None] / 2)
    bar = left @ (eye + A * step[..., None] / 2)
    C = both(torch.view_as_complex(system.C))
    C = (C[..., None, :] @ torch.linalg.inv(eye - torch.linalg.matrix_power(bar, int(system.length))))[..., 0, :]
    x, lags = (left @ (step * B)[..., None])[..., 0], []
    for _ in range(length):
        lags.append((C * x).sum(-1).real)
        x = (bar @ x[..., None])[..., 0]
    return torch.stack(lags, -1)


def definition(core, x):
    """All pairs of tokens along each order."""
    height, width = x.shape[1:3]
    length, y = height * width, core.D * x
    for name, system in zip(core.along, core.systems, strict=True):
        made, u = kernels(system, length), orders.gather(x, name)
        mixed = []
        for t in range(length):
            total = sum(made[0, :, t - s] * u[:, s] for s in range(t + 1))
            if core.bidirectional:
                total = total + sum(made[1, :, s - t - 1] * u[:, s] for s in range(t + 1, length))
            mixed.append(total)
        y = y + orders.scatter(torch.stack(mixed, 1), name, height, width) / len(core.along)
    return y


@pytest.mark.parametrize(
    ("grid", "made_for", "params"),
    [
        ((3, 4), (3, 4), {}),
        ((3, 3), (2, 2), {"n_ssm": 2}),  # twice as long, and twice again
        ((2, 3), (5, 5), {"orders": ["col", "snake_row"], "n_ssm": 1}),
        ((5, 2), (1, 7), {"orders": ["row_r"], "bidirectional": False}),
        ((1, 1), (2, 1), {"bidirectional": False}),
    ],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_the_definition(grid, made_for, params):
    x = image(*grid, width=WIDTH)
    mixer = make("s4", WIDTH, grid=made_for, **SMALL, **params)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: definition(mixer.core, x))
    plain = make("s4", WIDTH, grid=made_for, backend="reference", **SMALL, **params)
    for name, served in (("fft", mixer), ("reference", plain)):
        y, gradients = run_with_gradients(served, x)
        assert_close(y, expected, 1e-10, f"y of {name}")
        for key, gradient in gradients.items():
            assert_close(gradient, wanted[key], 1e-8, f"{name}: gradient of {key}")


def test_weights_bring_the_length_along_for_which_they_stand():
    """A mixer that was made for another grid is the same function once it has the weights."""
    learned, other = make("s4", WIDTH, grid=(3, 4), **SMALL), make("s4", WIDTH, grid=(2, 3), seed=5, **SMALL)
    x = image(4, 5, width=WIDTH)
    assert_differs(other(x), learned(x), 1e-2, "before")
    other.load_state_dict(learned.state_dict())
    assert other.core.systems[0].tokens == 12
    assert_close(other(x), learned(x), 1e-12, "after")
    assert make("s4", WIDTH, **SMALL).core.systems[0].tokens == 256


def test_starts_and_wishes():
    core = operators.create("s4", 8, grid=(4, 4), n_ssm=2).core
    (system,) = core.systems
    assert system.A_log.shape == (2, 32)
    assert system.C.shape == (2, 8, 32, 2)
    assert_close(system.A_log.exp(), torch.full((2, 32), 0.5), 1e-6, "decay")
    assert_close(system.P * math.sqrt(2), system.B, 1e-6, "P")
    rest = {name for name, _ in core.named_parameters()} - core.no_weight_decay
    assert rest == {"D", "systems.0.C"}
    assert core.core_cost(4, 4).state_elements == 2 * 64 * 8


def test_the_layer_has_the_parameters_of_its_authors():
    """FFTConv(128, mode="nplr", d_state=64, n_ssm=1) of s4.py: C, A, B and P of 32 numbers, steps, D."""
    mixer = operators.create("s4", 128, shell=operators.BARE, bidirectional=False, n_ssm=1)
    assert mixer.cost(4, 4).parameters == 8_640


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"state_dim": 0}, r"mixer\.state_dim=0 must be an integer >= 1"),
        ({"n_ssm": 5}, r"mixer\.n_ssm=5 must divide the width 16"),
        ({"steps": [0, 0.01]}, r"mixer\.steps\[0\]=0 must be a number >= 1e-06"),
        ({"orders": ["row_r"]}, "has an order with '_r', and both ways are read"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create("s4", 16, **params)
    assert "\n" not in str(caught.value)
