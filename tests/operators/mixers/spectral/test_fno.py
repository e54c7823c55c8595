import math

import pytest
import torch

import operators
from operators import InputError
from operators.testing.cases import noise, run_with_gradients
from operators.testing.checks import assert_close

WIDTH = 3


def make(seed=0, **params):
    torch.manual_seed(seed)
    return operators.create("fno", WIDTH, shell="published", **params).double()


def image(*grid, seed=1):
    return noise(2, *grid, WIDTH, dtype=torch.float64, seed=seed)


def definition(core, x):
    """The layer wave by wave: cosines and sines summed over all tokens, a complex matrix for each wave."""
    height, width = x.shape[1:3]
    rows, columns = (torch.arange(n, dtype=x.dtype) for n in (height, width))
    y = x @ core.pointwise.weight.T + core.pointwise.bias
    highest = core.modes
    for k in range(-min(highest[0], height // 2), min(highest[0], (height - 1) // 2) + 1):
        for m in range(min(highest[1], width // 2) + 1):
            angle = 2 * math.pi * (k * rows[:, None] / height + m * columns / width)
            plane = torch.polar(torch.ones_like(angle), angle)[..., None]
            spectrum = (x * plane.conj()).mean((1, 2))
            matrix = torch.complex(*core.matrices[k + highest[0], m].unbind(1))
            share = 1 if m == 0 or 2 * m == width else 2
            y = y + share * ((spectrum @ matrix)[:, None, None] * plane).real
    return y


@pytest.mark.parametrize("modes", [(4, 4), (1, 2), (0, 0), (2, 0)], ids=str)
@pytest.mark.parametrize("grid", [(3, 5), (4, 6), (1, 2)], ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, modes):
    mixer, x = make(modes=modes), image(*grid)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: definition(mixer.core, x))
    assert_close(y, expected, 1e-12, "y")
    for name, gradient in gradients.items():
        assert_close(gradient, wanted[name], 1e-12, f"gradient of {name}")


def test_waves_above_the_modes_are_left_out():
    mixer, x = make(modes=(1, 2)), image(9, 10)
    spectrum = torch.fft.rfft2(mixer.core.spectral(x), dim=(1, 2))
    assert spectrum[:, [0, 1, 8], :3].abs().min() > 1e-3
    assert spectrum[:, 2:8].abs().max() < 1e-12
    assert spectrum[:, :, 3:].abs().max() < 1e-12


def test_the_same_field_at_a_finer_resolution():
    """Of waves |k| <= 2, sampled on 6 × 5 and on 12 × 15 tokens: the coarse tokens are among the fine ones."""
    mixer, spectrum = make(modes=(2, 2)), torch.zeros(2, 5, 3, WIDTH, dtype=torch.complex128)
    spectrum += torch.complex(image(5, 3), image(5, 3, seed=2))

    def sample(height, width):
        waves = torch.zeros(2, height, width // 2 + 1, WIDTH, dtype=torch.complex128)
        waves[:, :3, :3], waves[:, -2:, :3] = spectrum[:, :3], spectrum[:, 3:]
        return torch.fft.irfft2(waves, s=(height, width), dim=(1, 2), norm="forward")

    coarse, fine = sample(6, 5), sample(12, 15)
    assert_close(fine[:, ::2, ::3], coarse, 1e-12, "input")
    assert_close(mixer(fine)[:, ::2, ::3], mixer(coarse), 1e-12, "output")


def test_without_waves_but_the_mean_it_is_global_pooling():
    mixer, x = make(modes=(0, 0)), image(5, 6)
    expected = (x.mean((1, 2)) @ mixer.core.matrices[0, 0, :, 0])[:, None, None].expand_as(x)
    assert_close(mixer.core.spectral(x), expected, 1e-12, "y")


def test_starts_with_the_rule_of_neuraloperator():
    torch.manual_seed(0)
    mixer = operators.create("fno", 32, shell="published", modes=(4, 3))
    assert mixer.core.matrices.shape == (9, 4, 32, 2, 32)
    assert mixer.core.matrices.square().sum(3).mean().item() == pytest.approx(1 / 32, rel=0.02)
    assert mixer.no_weight_decay() == {"core.matrices"}


@pytest.mark.parametrize(
    ("modes", "message"),
    [
        ([4], r"mixer\.modes=\[4\] must be two integers, the highest waves along rows and columns"),
        ([4, -1], r"mixer\.modes\[1\]=-1 must be an integer >= 0"),
        ([4.0, 4], r"mixer\.modes\[0\]=4\.0 must be an integer"),
        ("44", r"mixer\.modes='44' must be two integers"),
    ],
)
def test_wrong_modes_are_refused_in_one_line(modes, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create("fno", 16, modes=modes)
    assert "\n" not in str(caught.value)
