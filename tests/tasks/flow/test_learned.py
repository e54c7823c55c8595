"""A small network, trained with the flow matching loss, finds the optimal prediction to within 5 %."""

from __future__ import annotations

import pytest
import torch

from operators.testing.checks import assert_close
from tasks.flow import paths, times
from tasks.flow.loss import flow_loss
from tasks.flow.paths import interpolate
from tasks.flow.prediction import span
from tests.tasks.flow.toys import Mixture, Network, ring, two_gaussians

BATCH = 2048


def train(toy: Mixture, path: paths.Path, kind: str, steps: int, distribution: str = "uniform") -> Network:
    generator = torch.Generator().manual_seed(1)
    network = Network(toy.means.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    label = torch.zeros(BATCH, dtype=torch.int64)
    for _ in range(steps):
        x, eps = toy.draw(BATCH, generator)
        draw = torch.rand if distribution == "uniform" else torch.randn
        t = times.draw(distribution, draw(BATCH, generator=generator), span(path, kind))
        loss = flow_loss(network, path, kind, x.float(), label, t, eps.float()).prediction.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network


def check(toy: Mixture, path: paths.Path, kind: str, steps: int, distribution: str = "uniform") -> None:
    network = train(toy, path, kind, steps, distribution)
    generator = torch.Generator().manual_seed(2)
    x, eps = toy.draw(20_000, generator)
    start, end, _ = span(path, kind)
    t = start + (end - start) * torch.rand(20_000, generator=generator, dtype=torch.float64)
    x_t = interpolate(path, x, eps, t)
    with torch.no_grad():
        found = network(x_t.float(), t.float(), torch.zeros(20_000, dtype=torch.int64)).double()
    # x_t is drawn from p_t: the relative RMS error is weighted by it
    assert_close(found, toy.optimum(path, kind, x_t, t), 0.05, f"{kind} on the {path.name} path")


@pytest.mark.slow
@pytest.mark.parametrize("toy", [two_gaussians(1), ring()], ids=["line", "ring"])
def test_velocity_is_learned(toy):
    check(toy, paths.LINEAR, "velocity", 1500)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["velocity", "data", "noise"])
@pytest.mark.parametrize("path", paths.PATHS.values(), ids=paths.PATHS)
@pytest.mark.parametrize("toy", [two_gaussians(2), ring()], ids=["plane", "ring"])
def test_every_prediction_on_every_path_is_learned(toy, path, kind):
    check(toy, path, kind, 6000 if kind == "velocity" else 3000)  # the noisiest target takes the longest


@pytest.mark.slow
def test_learned_with_logit_normal_times():
    check(ring(), paths.LINEAR, "velocity", 3000, "logit_normal")
