"""The probe of resolution transfer."""

import numpy as np
import pytest
import torch

from operators.errors import InputError
from operators.pde import propagate
from tasks.probes.draws import draw
from tasks.probes.transfer.resolution import ResolutionTransfer


@pytest.mark.parametrize("units", ["image", "pixel"])
def test_the_equation_in_these_units_solves_both_grids_and_in_the_others_one(units):
    probe = ResolutionTransfer(grid=12, units=units, distance=2.5, sigma=1.2)

    def solved(samples, units):
        length = 1 if units == "pixel" else 1 / probe.grid  # of a cell of the training grid
        answers = propagate(
            torch.from_numpy(samples.input),
            diffusion=torch.tensor([(probe.sigma * length) ** 2 / 2]),
            velocity=torch.full((1, 2), probe.distance * length),
            units=units,
        )
        return answers.numpy()

    train, test = draw(probe, "train", range(4)), draw(probe, "test", range(4))
    assert (train.input.shape[-1], test.input.shape[-1]) == (12, 24)
    chance = test.target.var()
    other = {"image": "pixel", "pixel": "image"}[units]
    for samples in (train, test):
        assert probe.error(solved(samples, units), samples) < 1e-10
    assert probe.error(solved(train, other), train) < 1e-10
    assert probe.error(solved(test, other), test) > 0.3 * chance


def test_waves_are_as_many_in_finer_samples_and_as_long_in_larger_fields():
    for units, most in (("image", 2), ("pixel", 6)):
        probe = ResolutionTransfer(grid=8, units=units, ratio=3, waves=3)
        test = draw(probe, "test", range(50)).input[:, 0]
        power = np.square(np.abs(np.fft.fft2(test))).mean(axis=0)
        waves = np.abs(np.fft.fftfreq(24, 1 / 24))
        held = np.maximum.outer(waves, waves)[power > 1e-6]
        assert held.max() == most
        assert abs(np.square(test).mean() - 1) < 0.15
    # a training field, sampled three times as finely, is a test field: every third cell is a field of the small band
    finer = draw(ResolutionTransfer(grid=8, units="image", ratio=3, waves=3), "test", [0]).input[0, 0]
    power = np.abs(np.fft.fft2(finer[::3, ::3]))
    assert power[3:6].max() < 1e-4 * power.max()


def test_upsampling_is_exact_on_slow_waves_and_worse_than_the_oracle():
    probe = ResolutionTransfer(grid=64, units="image", waves=2, sigma=0.0, distance=4.0)
    assert upsampled(probe)[0] < 1e-4
    error, variance = upsampled(ResolutionTransfer(grid=16, units="image"))
    assert 1e-4 < error < 0.1 * variance
    error, variance = upsampled(ResolutionTransfer(grid=16, units="pixel"))
    assert error > 0.5 * variance
    assert probe.measures(np.zeros(1), draw(probe, "val", range(2))) == {}
    every = ResolutionTransfer(grid=16, units="image", ratio=1, coarse=16)  # nothing is enlarged
    assert upsampled(every)[0] < 1e-12


def upsampled(probe):
    """Its error in tests, and the variance of their targets."""
    test = draw(probe, "test", range(20))
    return probe.at("test").measures(np.zeros(1), test)["upsampled_error"], test.target.var()


def test_refusals():
    with pytest.raises(InputError, match="did you mean 'pixel'"):
        ResolutionTransfer(units="pixels")
    with pytest.raises(InputError, match=r"^probe\.waves=9 must be an integer >= 2 and <= 8"):
        ResolutionTransfer(waves=9)
    with pytest.raises(InputError, match=r"^probe\.distance=0 and probe\.sigma=0"):
        ResolutionTransfer(distance=0.0, sigma=0.0)
    with pytest.raises(InputError, match=r"^probe\.coarse=5 must divide probe\.grid=16"):
        ResolutionTransfer(coarse=5)
