import pytest
import torch

from operators.lti import companion
from operators.testing.cases import noise
from operators.testing.checks import assert_close

WIDTH = 2


@pytest.mark.parametrize("length", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("states", [1, 2, 5, 8])
def test_kernels_are_powers_of_the_companion_matrix(states, length):
    a, b = noise(2, WIDTH, states, dtype=torch.float64)
    c = noise(3, WIDTH, states, dtype=torch.float64, seed=4)
    a = a / a.abs().sum(-1, keepdim=True)
    A = torch.diag_embed(torch.ones(WIDTH, states - 1, dtype=a.dtype), -1)
    A[..., -1] += a
    lags = torch.stack([(torch.linalg.matrix_power(A, lag) @ b[..., None])[..., 0] for lag in range(length)], -1)
    made = companion.kernel(a, b, c, length)
    assert_close(made, torch.einsum("rds,dsl->rdl", c, lags), 1e-11, "kernel")
    unit = torch.zeros(1, length, WIDTH, dtype=torch.float64)
    unit[:, 0] = 1
    for number in range(3):
        assert_close(companion.run(a, b, c[number], unit)[0].mT, made[number], 1e-11, "response")


def test_feedback_that_sums_to_one_is_neither_lost_nor_grows_in_single_precision():
    """A running sum in disguise: 1 / (1 − z) for 4096 tokens."""
    series = torch.zeros(1, 3)
    series[0, 1] = -1
    assert_close(companion.reciprocal(series, 4096), torch.ones(1, 4096), 1e-5, "coefficients")
