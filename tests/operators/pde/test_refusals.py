"""Input that `propagate` refuses, in one line that helps."""

import pytest
import torch

from operators.errors import InputError
from operators.pde import propagate

FIELD = torch.ones(2, 4, 5)
DECAY = torch.full((2,), -0.5)


def refusal(*args, **kwargs):
    with pytest.raises(InputError) as caught:
        propagate(*args, **kwargs)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("option", "wrong", "meant"),
    [
        ("boundary", "neuman", "neumann"),
        ("forcing", "stedy", "steady"),
        ("units", "pixels", "pixel"),
        ("method", "seperable", "separable"),
    ],
)
def test_unknown_names(option, wrong, meant):
    message = refusal(FIELD, **{option: wrong})
    assert repr(wrong) in message
    assert f"did you mean '{meant}'" in message


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("diffusion", (3,)),
        ("diffusion", (2, 3)),
        ("diffusion", (3, 2)),
        ("diffusion", (2, 2, 3)),
        ("diffusion", ()),
        ("diffusion", (1, 2, 2, 2)),
        ("velocity", (2,)),
        ("velocity", (3, 2)),
        ("velocity", (2, 3)),
        ("velocity", (1, 2)),
        ("reaction", (3,)),
        ("reaction", (2, 1)),
        ("reaction", (1,)),
        ("reaction", ()),
    ],
)
def test_wrong_shapes_of_coefficients(name, shape):
    message = refusal(FIELD, **{name: torch.zeros(shape)})
    assert name in message
    assert str(tuple(shape)) in message


@pytest.mark.parametrize("shape", [(), (4,), (4, 5)], ids=str)
def test_a_field_needs_channels_rows_and_columns(shape):
    assert "field" in refusal(torch.ones(shape))


@pytest.mark.parametrize("shape", [(2, 0, 5), (2, 4, 0)], ids=str)
def test_an_empty_grid(shape):
    assert "field" in refusal(torch.ones(shape))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.uint8, torch.bool])
def test_fields_are_real(dtype):
    assert "field" in refusal(torch.ones(2, 4, 5, dtype=dtype))


@pytest.mark.parametrize("time", [-1, -1e-3, float("nan"), float("inf"), torch.tensor(-0.5), torch.ones(2), "1", True])
def test_wrong_times(time):
    assert "time" in refusal(FIELD, time=time)


@pytest.mark.parametrize("reaction", [None, torch.zeros(2), torch.tensor([-0.5, 0.1]), torch.tensor([-0.5, 0.0])])
def test_steady_needs_decay_in_every_channel(reaction):
    message = refusal(FIELD, reaction=reaction, diffusion=torch.ones(2), forcing="steady")
    assert "steady" in message
    assert "reaction" in message


def test_steady_takes_a_decay():
    out = propagate(FIELD, reaction=DECAY, forcing="steady")
    assert torch.allclose(out, 2 * FIELD)


def test_separable_refuses_a_full_tensor():
    tensor = torch.tensor([[0.4, 0.1], [0.1, 0.3]]).expand(2, 2, 2)
    assert "separable" in refusal(FIELD, diffusion=tensor, method="separable")


@pytest.mark.parametrize("forcing", ["constant", "steady"])
def test_separable_refuses_sources(forcing):
    assert "separable" in refusal(FIELD, diffusion=-DECAY, reaction=DECAY, forcing=forcing, method="separable")


def test_a_plane_too_wide_to_integrate_is_refused_before_memory_is_taken():
    many = torch.full((4,), 0.5)
    velocity = torch.full((4, 2), 1e7)
    message = refusal(
        torch.ones(4, 4, 4),
        diffusion=many,
        velocity=velocity,
        forcing="constant",
        boundary="absorbing",
        method="fft",
    )
    assert "quadrature nodes do not fit" in message
    assert "\n" not in message
