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


def kernels(core, system, length):
    """(R, D, N) by the formulas, with complex numbers."""
    copies = WIDTH // len(system.A_log)
    A = torch.complex(-system.A_log.exp(), system.A_imag).repeat(copies, 1)
    step, C = system.log_step.exp()[:, None], torch.view_as_complex(system.C)
    z = A * step
    w, b = (z.exp(), (z.exp() - 1) / A) if system.rule == "zoh" else ((1 + z / 2) / (1 - z / 2), step / (1 - z / 2))
    return torch.stack([2 * (C * b * w**lag).sum(-1).real for lag in range(length)], -1)


def definition(core, x):
    """All pairs of tokens along each order."""
    height, width = x.shape[1:3]
    length, y = height * width, core.D * x
    for name, system in zip(core.along, core.systems, strict=True):
        made, u = kernels(core, system, length), orders.gather(x, name)
        mixed = []
        for t in range(length):
            total = sum(made[0, :, t - s] * u[:, s] for s in range(t + 1))
            if core.bidirectional:
                total = total + sum(made[1, :, s - t - 1] * u[:, s] for s in range(t + 1, length))
            mixed.append(total)
        y = y + orders.scatter(torch.stack(mixed, 1), name, height, width) / len(core.along)
    return y


CASES = (
    {},
    {"rule": "bilinear", "start": "inv", "n_ssm": 2},
    {"orders": ["hilbert", "col"], "start": "legs", "n_ssm": 1},
    {"orders": ["row", "col_r", "row_r"], "bidirectional": False, "start": "real"},
)


@pytest.mark.parametrize("params", CASES, ids=str)
@pytest.mark.parametrize("grid", [(3, 4), (1, 1), (5, 2)], ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    mixer, x = make("s4d", WIDTH, state_dim=3, **params), image(*grid, width=WIDTH)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: definition(mixer.core, x))
    assert_close(y, expected, 1e-12, "y")
    for name, gradient in gradients.items():
        assert_close(gradient, wanted[name], 1e-10, f"gradient of {name}")


@pytest.mark.parametrize("params", [CASES[0], CASES[3]], ids=str)
def test_the_recurrence_says_the_same(params):
    fast, plain = (make("s4d", WIDTH, backend=backend, **params) for backend in ("fft", "reference"))
    x = image(3, 5, width=WIDTH)
    (y, gradients), (expected, wanted) = (run_with_gradients(mixer, x) for mixer in (fast, plain))
    assert_close(y, expected, 1e-12, "y")
    for name, gradient in gradients.items():
        assert_close(gradient, wanted[name], 1e-10, f"gradient of {name}")


def test_one_way_sees_no_later_token():
    mixer, x = make("s4d", WIDTH, orders=["col"], bidirectional=False), image(4, 5, width=WIDTH)
    changed = x.clone()
    changed[:, :, 3] += 1
    before, after = mixer(x), mixer(changed)
    assert_close(after[:, :, :3], before[:, :, :3], 1e-12, "earlier columns")
    assert_differs(after[:, :, 4], before[:, :, 4], 1e-4, "later column")


def test_a_reversed_order_is_the_order_of_the_turned_image():
    ahead, back = (make("s4d", WIDTH, orders=[name], bidirectional=False) for name in ("row", "row_r"))
    back.load_state_dict(ahead.state_dict())
    x = image(3, 5, width=WIDTH)
    assert_close(back(x.flip(1, 2)), ahead(x).flip(1, 2), 1e-12, "y")


def test_what_is_kept_between_calls_follows_the_parameters():
    mixer, x = make("s4d", WIDTH), image(4, 5, width=WIDTH)
    with torch.no_grad():
        first, again = mixer(x), mixer(x)
        assert_close(again, first, 0, "second call")
        mixer.core.systems[0].log_step.data.add_(0.5)
        assert_differs(mixer(x), first, 1e-3, "with longer steps")
    assert_close(mixer(x), mixer(x.clone()), 0, "with gradients")


@pytest.mark.parametrize("start", ["lin", "inv", "legs", "real", "ptd"])
def test_starts_are_bounded_and_forget(start):
    torch.manual_seed(0)
    core = operators.create("s4d", 64, start=start).core
    (system,) = core.systems
    made = system.double().kernels(4096)
    assert made.isfinite().all()
    steps = system.log_step.exp()
    assert 1e-3 <= steps.min() < 3e-3
    assert 5e-2 < steps.max() <= 1e-1
    fast = made[:, steps > 0.05]
    assert fast[..., -8:].abs().max() < 1e-3 * fast[..., :8].abs().max()


def test_starts_and_wishes():
    core = operators.create("s4d", 8, orders=["row", "col"], n_ssm=2).core
    assert core.systems[1].A_log.shape == (2, 32)
    assert core.systems[1].C.shape == (2, 8, 32, 2)
    assert core.systems[1].C.square().sum(-1).mean().item() == pytest.approx(1, rel=0.2)
    rest = {name for name, _ in core.named_parameters()} - core.no_weight_decay
    assert rest == {"D", "systems.0.C", "systems.1.C"}
    assert core.core_cost(4, 4).state_elements == 2 * 2 * 64 * 8
    assert math.isclose(core.systems[0].A_imag[0, 1].item(), math.pi, rel_tol=1e-6)


def test_the_minimal_layer_has_the_parameters_of_its_authors():
    """S4D(128) of s4d.py, up to its map to twice the width."""
    mixer = operators.create("s4d", 128, shell=operators.BARE, bidirectional=False)
    assert mixer.cost(4, 4).parameters == 49_664 - 2 * 128 * 129


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"start": "leg"}, "did you mean 'legs'"),
        ({"rule": "euler"}, r"mixer\.rule='euler' is not known"),
        ({"state_dim": 0}, r"mixer\.state_dim=0 must be an integer >= 1"),
        ({"state_dim": 2, "start": "ptd"}, r"mixer\.start=ptd needs mixer\.state_dim of 4"),
        ({"n_ssm": 3}, r"mixer\.n_ssm=3 must divide the width 16"),
        ({"steps": [0.1, 0.01]}, r"mixer\.steps\[1\]=0\.01 must be a number >= 0\.1"),
        ({"steps": [0.1]}, r"mixer\.steps=\[0\.1\] must be two numbers"),
        ({"orders": ["row_r"]}, "has an order with '_r', and both ways are read"),
        ({"orders": ["rows"]}, "did you mean 'row'"),
        ({"bidirectional": 2}, r"mixer\.bidirectional=2 is not known"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create("s4d", 16, **params)
    assert "\n" not in str(caught.value)
