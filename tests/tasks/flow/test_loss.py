"""The loss against what is known of normal distributions."""

from __future__ import annotations

import pytest
import torch

from operators.errors import InputError
from operators.testing.checks import assert_close
from tasks.flow.loss import bin_by_time, flow_loss
from tasks.flow.paths import PATHS, interpolate, velocity
from tasks.flow.prediction import KINDS, convert, span
from tests.tasks.flow.toys import gaussian

N, DIM, STD = 4000, 32, 0.5
LABEL = torch.zeros(N, dtype=torch.int64)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("time", [0.02, 0.3, 0.7, 0.97])
def test_at_the_optimum_the_residual_variance_is_left(path, kind, time):
    toy = gaussian(1.0, STD, DIM)
    x, eps = toy.draw(N, torch.Generator().manual_seed(0))
    t = torch.full((N,), time, dtype=torch.float64)
    found = flow_loss(toy.model(path, kind), path, kind, x, LABEL, t, eps)
    alpha, sigma = path.alpha(t[0]), path.sigma(t[0])
    # Given x_t, the variance of a·data + b·noise is std² (a σ − b α)² / (α² std² + σ²)
    pairs = {"data": (1, 0), "noise": (0, 1), "velocity": (path.alpha_rate(t[0]), path.sigma_rate(t[0]))}
    residual = {
        k: STD**2 * (a * sigma - b * alpha) ** 2 / (alpha**2 * STD**2 + sigma**2) for k, (a, b) in pairs.items()
    }
    # standard error of a mean of N·DIM squares: sqrt(2 / (N DIM)) = 0.4 %
    assert_close(found.prediction.mean(), residual[kind], 0.016, "loss of the prediction")
    assert_close(found.velocity.mean(), residual["velocity"], 0.016, "loss of the velocity")


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_sample_has_its_own_loss(path, kind):
    x, eps = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64)
    start, end, _ = span(path, kind)
    t, label = torch.linspace(start, end, 5, dtype=torch.float64), torch.arange(5)
    guess = torch.randn_like(x)

    def model(x_t, time, given):
        assert torch.equal(time, t)
        assert torch.equal(given, label)
        assert_close(x_t, interpolate(path, x, eps, t), 0, "x_t")
        return guess

    found = flow_loss(model, path, kind, x, label, t, eps)
    truth = {"data": x, "noise": eps, "velocity": velocity(path, x, eps, t)}
    assert_close(found.prediction, ((guess - truth[kind]) ** 2).mean((1, 2, 3)), 1e-14, "prediction")
    implied = convert(path, guess, interpolate(path, x, eps, t), t, kind, "velocity")
    assert_close(found.velocity, ((implied - truth["velocity"]) ** 2).mean((1, 2, 3)), 1e-9, "velocity")


def test_half_precision_predictions_are_compared_in_single():
    x, eps = torch.randn(2, 5, 300)
    t = torch.rand(5)
    found = flow_loss(lambda x_t, t, label: x_t.bfloat16(), PATHS["linear"], "velocity", x, t.long(), t, eps)
    assert found.prediction.dtype == found.velocity.dtype == torch.float32


def test_bins():
    t = torch.tensor([0.0, 0.24, 0.25, 0.5, 0.99, 1.0])
    losses = torch.tensor([1.0, 2.0, 4.0, float("nan"), 16.0, 32.0])
    sums, counts = bin_by_time(losses, t, 4)
    assert counts.tolist() == [2, 1, 1, 2]
    assert sums[[0, 1, 3]].tolist() == [3, 4, 48]
    assert sums[2].isnan()
    assert sums.dtype == counts.dtype == torch.float64
    sums, counts = bin_by_time(losses[:0], t[:0], 2)
    assert sums.tolist() == counts.tolist() == [0, 0]


def test_refusals():
    x = torch.randn(2, 3)
    t = torch.rand(2)
    with pytest.raises(InputError, match="did you mean 'noise'"):
        flow_loss(lambda x_t, t, label: x_t, PATHS["linear"], "nose", x, t.long(), t, x)
    with pytest.raises(InputError, match=r"shape \(2, 1\), data \(2, 3\)"):
        flow_loss(lambda x_t, t, label: x_t[:, :1], PATHS["linear"], "noise", x, t.long(), t, x)
    with pytest.raises(InputError, match="bins=0"):
        bin_by_time(t, t, 0)
