import cmath
import math

import pytest
import torch

import operators
from operators import InputError
from operators.testing.cases import noise, run_with_gradients
from operators.testing.checks import assert_close, assert_differs

WIDTH = 8


def make(seed=0, **params):
    """A mixer whose weights are large enough that little of the spectrum is shrunk to zero."""
    torch.manual_seed(seed)
    mixer = operators.create("afno", WIDTH, shell="published", **params).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.mul_(20)
    return mixer


def image(*grid, seed=1):
    return noise(2, *grid, WIDTH, dtype=torch.float64, seed=seed)


def wave(k, m, grid):
    """exp(2 pi i (k p / H + m q / W)) on the grid, without and with conjugation, (H, W, 1)."""
    values = [
        [cmath.exp(2j * math.pi * (k * p / grid[0] + m * q / grid[1])) for q in range(grid[1])] for p in range(grid[0])
    ]
    return torch.tensor(values, dtype=torch.complex128)[..., None]


def definition(core, x):
    """The equation wave by wave, with complex matrices by block."""
    grid, scale = x.shape[1:3], math.sqrt(x.shape[1] * x.shape[2])
    w1, b1, w2, b2 = (torch.complex(*p) for p in (core.w1, core.b1, core.w2, core.b2))
    y = x
    for k in range(grid[0]):
        for m in range(grid[1] // 2 + 1):
            plane = wave(k, m, grid)
            spectrum = (x * plane.conj()).sum((1, 2)) / scale
            mixed = []
            for block, part in enumerate(spectrum.chunk(core.blocks, -1)):
                hidden = part @ w1[block] + b1[block]
                hidden = torch.complex(hidden.real.clamp(min=0), hidden.imag.clamp(min=0))
                made = hidden @ w2[block] + b2[block]
                shrunk = [v.sign() * (v.abs() - core.sparsity).clamp(min=0) for v in (made.real, made.imag)]
                mixed.append(torch.complex(*shrunk))
            share = 1 if m == 0 or 2 * m == grid[1] else 2
            y = y + share * (torch.cat(mixed, -1)[:, None, None] * plane).real / scale
    return y


@pytest.mark.parametrize("grid", [(3, 5), (4, 2)], ids=str)
@pytest.mark.parametrize("params", [{}, {"blocks": 2, "hidden": 3, "sparsity": 0.5}], ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    mixer, x = make(**params), image(*grid)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: definition(mixer.core, x))
    assert_close(y, expected, 1e-12, "y")
    for name, gradient in gradients.items():
        assert_close(gradient, wanted[name], 1e-12, f"gradient of {name}")


def test_the_rectifier_does_not_commute_with_shifts():
    mixer, x = make(sparsity=0.0), image(5, 6)
    with torch.no_grad():
        mixer.core.b1.zero_()
        mixer.core.b2.zero_()
    assert_differs(mixer(x.roll((1, 2), (1, 2))), mixer(x).roll((1, 2), (1, 2)), 1e-2, "output of a shift")


def test_what_is_shrunk_to_zero_leaves_the_input():
    mixer, x = make(sparsity=1e6), image(5, 6)
    assert torch.equal(mixer(x), x)


def test_channels_of_different_blocks_do_not_meet():
    mixer, x = make(blocks=2), image(5, 6)
    other = x.clone()
    other[..., 0] += 1
    assert_close(mixer(other)[..., 4:], mixer(x)[..., 4:], 0, "the other block")
    assert_differs(mixer(other)[..., 1:4], mixer(x)[..., 1:4], 1e-3, "the same block")


def test_starts_as_published():
    torch.manual_seed(0)
    mixer = operators.create("afno", 64, shell="published", hidden=2)
    shapes = [(2, 8, 8, 16), (2, 8, 16), (2, 8, 16, 8), (2, 8, 8)]
    assert [tuple(parameter.shape) for parameter in mixer.parameters()] == shapes
    assert mixer.core.w1.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"blocks": 3}, r"mixer\.blocks=3 must divide the width 16: allowed are 1, 2, 4, 8, 16"),
        ({"blocks": 0}, r"mixer\.blocks=0 must be an integer >= 1"),
        ({"hidden": 0}, r"mixer\.hidden=0 must be an integer >= 1"),
        ({"sparsity": -1.0}, r"mixer\.sparsity=-1\.0 must be a number >= 0"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create("afno", 16, **params)
    assert "\n" not in str(caught.value)
