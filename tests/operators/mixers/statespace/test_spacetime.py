import pytest
import torch

import operators
from operators import InputError
from operators.scan import orders
from operators.testing.cases import run_with_gradients
from operators.testing.checks import assert_close
from tests.operators.mixers.drawn import image, make

WIDTH = 4


def kernels(system, length):
    """(R, D, N) by powers of the companion matrix."""
    a = system.a / system.a.abs().sum(-1, keepdim=True)
    states = a.shape[-1]
    shift = torch.diag_embed(torch.ones(len(a), states - 1, dtype=a.dtype), -1)
    last = torch.zeros(states, dtype=a.dtype)
    last[-1] = 1
    A, x, lags = shift + a[..., None] * last, system.b, []
    for _ in range(length):
        lags.append((system.c * x).sum(-1))
        x = (A @ x[..., None])[..., 0]
    return torch.stack(lags, -1).repeat_interleave(WIDTH // len(a), dim=1)


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


CASES = (
    ((3, 4), {"state_dim": 3}),
    ((5, 2), {"state_dim": 16, "n_kernels": 2}),  # reaches further than there are tokens
    ((3, 3), {"state_dim": 1, "orders": ["hilbert", "col"]}),
    ((2, 5), {"state_dim": 4, "orders": ["col_r", "row"], "bidirectional": False, "n_kernels": 1}),
    ((1, 2), {"state_dim": 2}),
)


@pytest.mark.parametrize(("grid", "params"), CASES, ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    x = image(*grid, width=WIDTH)
    fast, plain = (make("spacetime", WIDTH, backend=backend, **params) for backend in ("fft", "reference"))
    expected, wanted = run_with_gradients(fast, x, through=lambda x: definition(fast.core, x))
    scale = max(gradient.abs().max() for gradient in wanted.values())
    for served in (fast, plain):
        y, gradients = run_with_gradients(served, x)
        assert_close(y, expected, 1e-12, f"y of {served.backend}")
        for name, gradient in gradients.items():
            if wanted[name].abs().max() < 1e-12 * scale:  # one coefficient, normalised, is a sign
                assert gradient.abs().max() < 1e-12 * scale, name
            else:
                assert_close(gradient, wanted[name], 1e-10, f"{served.backend}: gradient of {name}")


def test_feedback_never_grows():
    """However large its coefficients are: the response of the last state to a unit in the first."""
    mixer = make("spacetime", WIDTH, state_dim=5, bidirectional=False)
    (system,) = mixer.core.systems
    with torch.no_grad():
        system.a.mul_(1e3)
        for vector, place in ((system.b, 0), (system.c, -1)):
            vector.zero_()
            vector[..., place] = 1
    assert system.kernels(500).abs().max() <= 1 + 1e-12


def test_starts_and_wishes():
    core = operators.create("spacetime", 8, n_kernels=2, orders=["row", "col"]).core
    assert core.systems[1].a.shape == (2, 64)
    assert core.systems[1].c.shape == (2, 2, 64)
    assert core.no_weight_decay == {"systems.0.a", "systems.1.a"}
    assert core.core_cost(4, 4).state_elements == 2 * 2 * 64 * 8


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"state_dim": 0}, r"mixer\.state_dim=0 must be an integer >= 1"),
        ({"n_kernels": 3}, r"mixer\.n_kernels=3 must divide the width 16"),
        ({"orders": ["col_r"]}, "has an order with '_r', and both ways are read"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create("spacetime", 16, **params)
    assert "\n" not in str(caught.value)
