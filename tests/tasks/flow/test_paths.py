"""Paths and predictions against their definitions, in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from operators.errors import InputError
from operators.testing.checks import assert_close
from tasks.flow import paths
from tasks.flow.paths import PATHS, interpolate
from tasks.flow.prediction import KINDS, convert, span, velocity_model, velocity_weight

INNER = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
each_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
each_kind = pytest.mark.parametrize("kind", KINDS)


def draws(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, eps = torch.randn(2, n, 3, 2, dtype=torch.float64)
    return x, eps


def truth(path, x, eps, t):
    """The three predictions that belong together."""
    return {"velocity": paths.velocity(path, x, eps, t), "data": x, "noise": eps}


@each_path
def test_rates_are_the_derivatives(path):
    t = INNER.clone().requires_grad_()
    for value, rate in ((path.alpha, path.alpha_rate), (path.sigma, path.sigma_rate)):
        (slope,) = torch.autograd.grad(value(t).sum(), t)
        assert_close(rate(INNER), slope, 1e-12, "rate")


@each_path
def test_boundary_values(path):
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    noise_alpha = math.exp(-5.025) if path.name == "vp" else 0.0  # ∫β/2 = (0.1 + 20)/4
    assert_close(path.alpha(ends), torch.tensor([noise_alpha, 1.0], dtype=torch.float64), 1e-14, "alpha")
    noise_sigma = math.sqrt(1 - noise_alpha**2)
    assert_close(path.sigma(ends), torch.tensor([noise_sigma, 0.0], dtype=torch.float64), 1e-14, "sigma")
    assert path.sigma(ends)[1] == 0


@each_path
def test_monotone(path):
    assert (path.alpha(INNER).diff() > 0).all()
    assert (path.sigma(INNER).diff() < 0).all()


def test_definitions():
    t = INNER
    assert_close(paths.get("linear").alpha(t) + paths.get("linear").sigma(t), torch.ones_like(t), 1e-15, "linear")
    assert_close(paths.get("gvp").alpha(t), torch.sin(math.pi * t / 2), 1e-15, "gvp")
    assert_close(paths.get("gvp").sigma(t), torch.cos(math.pi * t / 2), 1e-12, "gvp")
    # α = exp(−½ ∫ β), β from 0.1 at the data to 20 at the noise, by the trapezium rule, exact for a line
    beta = 0.1 + (1 - t) * 19.9
    assert_close(paths.get("vp").alpha(t), torch.exp(-(beta + 0.1) / 2 * (1 - t) / 2), 1e-14, "vp")


@pytest.mark.parametrize("name", ["gvp", "vp"])
def test_variance_is_preserved(name):
    path = paths.get(name)
    assert_close(path.alpha(INNER) ** 2 + path.sigma(INNER) ** 2, torch.ones_like(INNER), 1e-14, "α² + σ²")


@each_path
def test_velocity_is_the_derivative_of_the_interpolation(path):
    (x, eps), t = draws(len(INNER)), INNER.clone().requires_grad_()
    direction = torch.randn_like(x)
    (rate,) = torch.autograd.grad((interpolate(path, x, eps, t) * direction).sum(), t)
    assert_close((paths.velocity(path, x, eps, INNER) * direction).sum((1, 2)), rate, 1e-12, "velocity")


@each_path
@pytest.mark.parametrize(("source", "target"), list(itertools.product(KINDS, KINDS)))
def test_conversions_and_round_trips_are_exact(path, source, target):
    x, eps = draws(len(INNER))
    known = truth(path, x, eps, INNER)
    x_t = interpolate(path, x, eps, INNER)
    there = convert(path, known[source], x_t, INNER, source, target)
    assert_close(there, known[target], 1e-12, f"{source} → {target}")
    assert_close(convert(path, there, x_t, INNER, target, source), known[source], 1e-12, "and back")


@each_path
@each_kind
def test_the_span_is_where_the_velocity_is_known(path, kind):
    start, end, singular_end = span(path, kind)
    t = torch.tensor([start, (start + end) / 2, end], dtype=torch.float64)
    x, eps = draws(3)
    known = truth(path, x, eps, t)
    model = velocity_model(lambda x_t, t, label: known[kind], path, kind)
    found = model(interpolate(path, x, eps, t), t, torch.zeros(3))
    assert_close(found, known["velocity"], 1e-9, "velocity")
    # at an end that was cut, it is not known, or infinite
    whole = torch.tensor([0.0, 1.0], dtype=torch.float64)
    x, eps = draws(2)
    value = truth(path, x, eps, whole)[kind]
    at_ends = convert(path, value, interpolate(path, x, eps, whole), whole, kind, "velocity")
    assert bool(at_ends[0].isfinite().all()) == (start == 0)
    assert bool(at_ends[1].isfinite().all()) == (end == 1) == (not singular_end)


def test_spans_end_where_the_schedules_say():
    for path in PATHS.values():
        first, last = torch.tensor([path.first, path.last], dtype=torch.float64)
        assert_close(path.sigma(last), torch.tensor(1e-3).double(), 1e-6, "σ at the last time")
        if path.name != "vp":
            assert_close(path.alpha(first), torch.tensor(1e-2).double(), 1e-6, "α at the first time")
    assert span(paths.LINEAR, "velocity") == (0, 1, False)
    assert span(paths.LINEAR, "noise") == (0.01, 1, False)
    assert span(paths.VP, "noise")[0] == 0


@each_path
@each_kind
def test_weight_of_the_velocity_error(path, kind):
    x, eps = draws(len(INNER))
    x_t, known = interpolate(path, x, eps, INNER), truth(path, x, eps, INNER)
    wrong = known[kind] + torch.randn_like(x)
    error = convert(path, wrong, x_t, INNER, kind, "velocity") - known["velocity"]
    weight = paths.per_sample(velocity_weight(path, kind, INNER), x)
    assert_close(weight * (wrong - known[kind]) ** 2, error**2, 1e-9, "squared error of the velocity")


def test_wrong_names_are_refused():
    with pytest.raises(InputError, match="did you mean 'linear'"):
        paths.get("lineal")
    x = torch.zeros(2, 1)
    for call in (
        lambda: span(paths.LINEAR, "nois"),
        lambda: convert(paths.LINEAR, x, x, x[:, 0], "nois", "data"),
        lambda: convert(paths.LINEAR, x, x, x[:, 0], "data", "nois"),
        lambda: velocity_model(lambda x_t, t, label: x_t, paths.LINEAR, "nois"),
        lambda: velocity_weight(paths.LINEAR, "nois", x),
    ):
        with pytest.raises(InputError, match="did you mean 'noise'"):
            call()
