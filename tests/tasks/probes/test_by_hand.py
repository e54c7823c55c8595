"""Mixers of the zoo with weights set by hand solve the probes that are theirs: a test of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import operators
from operators.pde import propagate
from operators.shell.spec import BARE
from tasks.probes.draws import draw
from tasks.probes.linear.blur import Blur, Deblur
from tasks.probes.linear.shift import Shift
from tasks.probes.linear.source_sink import SourceSink
from tasks.probes.probe import Array, Probe, Samples, threshold
from tasks.probes.recall.counting import Counting
from tasks.probes.recall.mqar_2d import MQAR2D

CONDITIONS = {"periodic": "periodic", "reflective": "neumann", "wrap": "periodic", "zero": "absorbing"}
"""Boundaries of probes, in the words of `operators.pde`."""


def equation(grid: int, boundary: str, readout: float = 1.0, forcing: str = "initial", **raw: Any) -> operators.Mixer:
    """`pde_ssm` without a shell, of one channel and one state, whose raw coefficients are given by name."""
    names = {"velocity": "convection", "log_length": "diffusion", "reaction_logit": "reaction"}
    options = {"terms": [names[name] for name in raw], "boundary": CONDITIONS[boundary], "forcing": forcing}
    mixer = operators.create("pde_ssm", 1, grid=(grid, grid), shell=BARE, backend="fft", state=1, **options).double()
    with torch.no_grad():
        for name, value in {**raw, "readout": readout, "skip": 0.0}.items():
            parameter = getattr(mixer.core, name)
            parameter.copy_(torch.as_tensor(value).expand_as(parameter))
    return mixer


def answers(mixer: operators.Mixer, samples: Samples) -> Array:
    """The mixer's outputs (B, C, H, W) of the inputs."""
    with torch.no_grad():
        return mixer(channels_last(samples.input)).movedim(-1, 1).numpy()


def channels_last(array: Array) -> Tensor:
    return torch.from_numpy(array).double().movedim(1, -1)


def relative_error(probe: Probe, answer: Array, samples: Samples) -> float:
    return probe.error(answer, samples) / probe.error(np.zeros(1), samples)


@pytest.mark.parametrize("boundary", ["wrap", "zero"])
@pytest.mark.parametrize("distance", [1.0, 2.5, 5.0])
def test_convection_shifts(distance: float, boundary: str) -> None:
    if boundary == "zero" and distance % 1:
        pytest.skip("zeros come in by whole pixels only")
    probe = Shift(distance=distance, boundary=boundary)
    samples = draw(probe, "test", range(4))
    mixer = equation(probe.grid, boundary, velocity=distance / probe.grid)
    assert relative_error(probe, answers(mixer, samples), samples) < 1e-10


@pytest.mark.parametrize("boundary", ["periodic", "reflective"])
@pytest.mark.parametrize("anisotropy", [1.0, 4.0])
def test_diffusion_blurs(anisotropy: float, boundary: str) -> None:
    probe = Blur(sigma=2.0, anisotropy=anisotropy, boundary=boundary)
    samples = draw(probe, "test", range(4))
    lengths = probe.sigma / probe.grid * torch.tensor([anisotropy, 1 / anisotropy], dtype=torch.float64).sqrt()
    mixer = equation(probe.grid, boundary, log_length=lengths.log())
    assert relative_error(probe, answers(mixer, samples), samples) < 1e-10


@pytest.mark.parametrize("boundary", ["periodic", "reflective"])
@pytest.mark.parametrize("length", [1.0, 8.0])
def test_steady_diffusion_and_reaction_solve_source_and_sink(length: float, boundary: str) -> None:
    probe = SourceSink(length=length, sources=4, boundary=boundary)
    samples = draw(probe, "test", range(4))
    decay = 0.5 + 7.5 / 2  # at a logit of 0
    diffusion = np.log(length * np.sqrt(2 * decay) / probe.grid)
    mixer = equation(probe.grid, boundary, decay / probe.rho, "steady", log_length=float(diffusion), reaction_logit=0.0)
    assert relative_error(probe, answers(mixer, samples), samples) < 1e-10


@pytest.mark.parametrize("level", range(len(Deblur.difficulties)))
def test_a_global_filter_reaches_wieners_error(level: int) -> None:
    probe = Deblur(**Deblur.difficulties[level])
    samples = draw(probe, "test", range(64))
    mixer = operators.create("gfnet", 1, grid=(probe.grid, probe.grid), shell=BARE, backend="fft").double()
    rows, columns = (np.square(2 * np.pi * waves(probe.grid)) for waves in (np.fft.fftfreq, np.fft.rfftfreq))
    with torch.no_grad():
        mixer.core.filter.zero_()
        mixer.core.filter[0, ..., 0] = torch.from_numpy(probe.wiener(rows[:, None], columns[None]))
    error = probe.error(answers(mixer, samples), samples)
    assert error == pytest.approx(probe.error(probe.solve(samples), samples), rel=1e-6)
    assert error == pytest.approx(probe.expected_error, rel=0.1)  # of 16,384 cells


def test_no_positive_average_sharpens() -> None:
    probe = Deblur(sigma=1.2)
    samples = draw(probe, "test", range(64))
    unchanged = probe.error(samples.input, samples)
    blurred = equation(probe.grid, "periodic", log_length=float(np.log(0.5 / probe.grid)))
    assert probe.error(answers(blurred, samples), samples) > unchanged > 2 * probe.error(probe.solve(samples), samples)


@pytest.mark.parametrize("level", range(len(MQAR2D.difficulties)))
def test_convection_and_attention_recall(level: int) -> None:
    """Convection brings each key to its value's cell; then a query finds the value by the key beside it."""
    probe = MQAR2D(**MQAR2D.difficulties[level])
    samples = draw(probe, "test", range(4))
    x = channels_last(samples.input)
    key, value, asks = x[..., : probe.keys], x[..., probe.keys : -1], x[..., -1:]
    velocity = torch.tensor(probe.offset, dtype=torch.float64).expand(probe.keys, 2)
    moved = propagate((key * (1 - asks)).movedim(-1, 1), velocity=velocity).movedim(1, -1)
    beside = moved * value.sum(-1, keepdim=True)
    mixer = operators.create("attention", probe.channels, shell=BARE, heads=1).double()
    with torch.no_grad():
        query, of = torch.zeros(2, probe.channels, probe.channels, dtype=torch.float64)
        sharpness = 40 * probe.channels**0.5
        query[: probe.keys, : probe.keys] = sharpness * torch.eye(probe.keys)
        of[: probe.keys, : probe.keys] = torch.eye(probe.keys)
        of[-1, -1] = -1  # queries are not found themselves
        mixer.core.qk.weight.copy_(torch.cat((query, of)))
        mixer.core.qk.bias.zero_()
        mixer.core.qk.bias[probe.channels - 1] = sharpness
        given = mixer(torch.cat((key * asks + beside, value, asks), dim=-1))[..., probe.keys : -1]
    assert probe.error(given.argmax(-1).numpy(), samples) == 0


def test_sums_count_and_means_do_only_where_the_grid_stays() -> None:
    probe = Counting(grid=12, most=16, test_grid=24)
    fitted = draw(probe, "val", range(64))
    slope, start = np.polyfit(fitted.input.mean(axis=(1, 2, 3)), fitted.target[:, 0, 0, 0], 1)
    for split, solved in (("val", True), ("test", False)):
        asked = draw(probe, split, range(64))  # type: ignore[arg-type]
        there = probe.at(split)  # type: ignore[arg-type]
        per_image = (-1, 1, 1, 1)
        sums = slope / probe.grid**2 * asked.input.sum(axis=(1, 2, 3)) + start
        means = slope * asked.input.mean(axis=(1, 2, 3)) + start
        assert there.error(sums.reshape(per_image), asked) < 1e-9
        assert (there.error(means.reshape(per_image), asked) < threshold(0, 1, exact=True)) == solved
