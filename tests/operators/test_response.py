"""The kernel for the eye: which shade a magnitude gets, and that the drawn core is the one that runs."""

import pytest
import torch

from operators import response
from operators.pictures import impulse_response
from operators.testing.checks import assert_close
from tests.mixers import every_mixer


def test_shades_are_a_factor_apart() -> None:
    values = torch.tensor([[1.0, 0.99, 1 / response.STEP], [response.STEP**-2, 1e-9, 0.0]])
    assert response.as_text(values) == "██▓▓▓▓\n▒▒    "
    assert response.as_text(values, response.LETTERS) == "@@%%%%\n++    "


def test_nothing_is_blank() -> None:
    assert response.as_text(torch.zeros(2, 3)) == "\n".join([" " * 6] * 2)


@pytest.mark.parametrize("name", every_mixer())
def test_every_mixer_responds_and_leaves_the_global_generator(name: str) -> None:
    before = torch.get_rng_state()
    mixer, kernel = response.respond(name)
    assert torch.equal(torch.get_rng_state(), before)
    assert kernel.shape == (*response.GRID, response.DIM)
    assert kernel.isfinite().all()
    assert torch.equal(response.respond(name)[1], kernel)
    if mixer.card.linear:
        assert_close(kernel, impulse_response(mixer, response.GRID), 0, "kernel")
    middle = response.GRID[0] // 2
    assert response.magnitude(kernel)[middle, middle] > 0


def test_signs_have_colours_of_their_own() -> None:
    colours = response._coloured(torch.tensor([[-1.0, 0.0, 1.0, 0.5]]))[0]
    expected = [response.NEGATIVE, response.ZERO, response.POSITIVE]
    assert colours[:3].tolist() == [list(map(float, colour)) for colour in expected]
    assert_close(colours[3], (colours[1] + colours[2]) / 2, 1e-6, "half")
