"""Guidance: which velocity, and how many rows it costs."""

from __future__ import annotations

import pytest
import torch

from operators.errors import InputError
from operators.testing.checks import assert_close, assert_differs
from tasks.flow.guidance import guide
from tasks.flow.solvers import sample

NULL = 10
X = torch.arange(12, dtype=torch.float64).reshape(4, 3)
T = torch.tensor([0.0, 0.3, 0.6, 1.0], dtype=torch.float64)
LABEL = torch.tensor([1, 2, 3, 4])


class Model:
    """Something that depends on everything, and counts its calls."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x, t, label):
        self.rows.append(len(x))
        return torch.sin(x + t[:, None]) * (1 + label[:, None])


def expected(weight, inside):
    model = Model()
    conditional, null = model(X, T, LABEL), model(X, T, torch.full_like(LABEL, NULL))
    return torch.where(torch.tensor(inside)[:, None], null + weight * (conditional - null), conditional)


def test_weight_one_is_no_guidance_at_the_price_of_one():
    model = Model()
    found = guide(model, LABEL, NULL, 1.0)(X, T)
    assert model.rows == [4]
    assert_close(found, Model()(X, T, LABEL), 0, "conditional")


def test_weight_zero_is_the_null_class_at_the_price_of_one():
    model = Model()
    found = guide(model, LABEL, NULL, 0.0)(X, T)
    assert model.rows == [4]
    assert_close(found, Model()(X, T, torch.full_like(LABEL, NULL)), 0, "unconditional")


def test_guidance_within_an_interval():
    inside = [False, True, True, False]
    for weight, rows in ((0.0, 4), (0.5, 6), (4.0, 6)):
        model = Model()
        found = guide(model, LABEL, NULL, weight, (0.3, 0.6))(X, T)
        assert model.rows == [rows]
        assert_close(found, expected(weight, inside), 1e-15, f"weight {weight}")


def test_one_call_for_both():
    model = Model()
    assert_close(guide(model, LABEL, NULL, 3.0)(X, T), expected(3.0, [True] * 4), 1e-15, "guided")
    assert model.rows == [8]


def test_no_sample_inside_costs_one():
    model = Model()
    found = guide(model, LABEL, NULL, 3.0, (0.4, 0.5))(X, T)
    assert model.rows == [4]
    assert_close(found, expected(1.0, [False] * 4), 0, "conditional")


@pytest.mark.parametrize("solver", ["euler", "heun", "dopri5"])
def test_samples_with_guidance(solver):
    def run(velocity):
        return sample(velocity, X / 10, 6, solver).x1

    plain = run(lambda x, t: Model()(x, t, LABEL))
    assert_close(run(guide(Model(), LABEL, NULL, 1.0)), plain, 0, "weight 1")
    assert_differs(run(guide(Model(), LABEL, NULL, 2.0)), plain, 0.01, "weight 2")
    guided = run(guide(Model(), LABEL, NULL, 2.0, (0.2, 0.7)))
    alone = [
        sample(guide(Model(), LABEL[i : i + 1], NULL, 2.0, (0.2, 0.7)), X[i : i + 1] / 10, 6, solver) for i in range(4)
    ]
    assert_close(guided, torch.cat([one.x1 for one in alone]), 1e-12, "whatever the batch")


@pytest.mark.parametrize("interval", [(0.5, 0.2), (-0.1, 1.0), (0.0, 1.1), (float("nan"), 1.0)])
def test_wrong_intervals_are_refused(interval):
    with pytest.raises(InputError, match="interval"):
        guide(Model(), LABEL, NULL, 2.0, interval)


@pytest.mark.parametrize("weight", [-1.0, float("inf")])
def test_wrong_weights_are_refused(weight):
    with pytest.raises(InputError, match="guidance"):
        guide(Model(), LABEL, NULL, weight)
