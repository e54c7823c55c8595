import pytest
import torch

from operators.lti import diagonal
from operators.lti.discretisation import RULES, discretise, powers
from operators.testing.cases import noise
from operators.testing.checks import assert_close

WIDTH, STATES = 3, 4


def drawn(rule):
    """A (D, S) and Δ (D, 1), complex and real, and their recurrence."""
    decay, frequency = noise(WIDTH, STATES, dtype=torch.float64).exp(), 5 * noise(WIDTH, STATES, dtype=torch.float64)
    step = noise(WIDTH, 1, dtype=torch.float64, seed=4).exp()
    return torch.complex(-decay, frequency), step, discretise(decay, frequency, step, rule)


@pytest.mark.parametrize("rule", RULES)
def test_rules_are_their_formulas(rule):
    A, step, system = drawn(rule)
    z = A * step
    w, b = (z.exp(), (z.exp() - 1) / A) if rule == "zoh" else ((1 + z / 2) / (1 - z / 2), step / (1 - z / 2))
    assert_close(torch.polar(system.log_size.exp(), system.angle), w, 1e-13, "w")
    assert_close(torch.complex(system.real, system.imag), b, 1e-13, "b")
    assert (system.log_size < 0).all()


def test_a_slow_system_loses_no_digits():
    """(exp(z) − 1) / A for z of 1e-9, in single precision."""
    slow = torch.tensor([1e-3]), torch.tensor([2e-3]), torch.tensor([1e-6])
    real, imag = discretise(*slow, "zoh")[2:]
    assert real.item() == pytest.approx(1e-6, rel=1e-6)
    assert imag.item() == pytest.approx(1e-6 * 1e-9, rel=1e-4)  # Δ² ω / 2


def test_a_bilinear_step_that_forgets_at_once_is_finite():
    system = discretise(torch.tensor([2.0]), torch.tensor([0.0]), torch.tensor([1.0]), "bilinear")
    size, turned = powers(system.log_size, system.angle, torch.arange(3.0))
    assert size.isfinite().all()
    assert size[0, 1:].abs().max() < 1e-14
    assert turned.abs().max() < 1e-14


@pytest.mark.parametrize("length", [1, 2, 3, 4, 10, 16, 17, 35])
def test_kernels_are_sums_of_powers_and_responses_of_the_recurrence(length):
    _, _, system = drawn("zoh")
    readout = noise(2, WIDTH, STATES, 2, dtype=torch.float64)
    made = diagonal.kernel(system, readout, length)
    w = torch.polar(system.log_size.exp(), system.angle)
    c = torch.view_as_complex(readout) * torch.complex(system.real, system.imag)
    expected = torch.stack([2 * (c * w**lag).sum(-1).real for lag in range(length)], -1)
    assert_close(made, expected, 1e-12, "kernel")
    unit = torch.zeros(1, length, WIDTH, dtype=torch.float64)
    unit[:, 0] = 1
    for number in range(2):
        assert_close(diagonal.run(system, readout[number], unit)[0].mT, made[number], 1e-12, "response")


def test_every_sample_twice_is_a_step_of_twice_the_length():
    """Of zero-order hold, which takes the input to be constant between samples."""
    decay, frequency, step = torch.tensor([[0.3, 1.1]]).double(), torch.tensor([[2.0, 0.4]]).double(), 0.2
    readout, u = noise(1, 2, 2, dtype=torch.float64), noise(1, 9, 1, dtype=torch.float64)
    slow, fast = (discretise(decay, frequency, torch.tensor(h).double(), "zoh") for h in (2 * step, step))
    twice = diagonal.run(fast, readout, u.repeat_interleave(2, 1))[:, 1::2]
    assert_close(twice, diagonal.run(slow, readout, u), 1e-12, "y")
