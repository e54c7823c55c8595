import math

import pytest
import torch

import operators
from operators import InputError
from operators.lti import roesser
from operators.testing.cases import run_with_gradients
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.drawn import image, make

WIDTH = 4
FLIPS = {1: [()], 2: [(), (1, 2)], 4: [(), (1,), (2,), (1, 2)]}


def definition(core, x):
    """The recurrence from every corner, token by token."""
    copies = WIDTH // core.A.shape[2]
    A, B, C = core.A.sigmoid(), core.B.sigmoid(), core.C / math.sqrt(core.state_dim)
    if core.complex_states:
        A = A * torch.exp(2j * math.pi * core.A_angle.sigmoid())
        B, C = torch.view_as_complex(B), torch.view_as_complex(C)
    y = 0 if core.D is None else core.D * x
    for number, axes in enumerate(FLIPS[core.directions]):
        a, b = ([part.repeat(copies, 1) for part in of[:, number]] for of in (A, B))
        y = y + roesser.run(a, b, list(C[:, number]), x.flip(axes), core.share).flip(axes)
    return y


CASES = (
    {},
    {"directions": 2, "n_ssm": 2, "residual": True, "share": 1},
    {"directions": 1, "n_ssm": None, "complex_states": True},
)


@pytest.mark.parametrize("params", CASES, ids=str)
@pytest.mark.parametrize("grid", [(3, 4), (1, 1), (5, 2)], ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    mixer, x = make("ssm2d", WIDTH, state_dim=3, backend="fft", **params), image(*grid, width=WIDTH)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: definition(mixer.core, x))
    assert_close(y, expected, 1e-12, "y")
    for name, gradient in gradients.items():
        assert_close(gradient, wanted[name], 1e-10, f"gradient of {name}")


def test_one_direction_sees_its_quadrant():
    mixer, x = make("ssm2d", WIDTH, directions=1), image(4, 5, width=WIDTH)
    changed = x.clone()
    changed[:, 2, 3] += 1
    difference = (mixer(changed) - mixer(x)).abs().sum((0, -1))
    assert difference[:2].max() < 1e-12
    assert difference[:, :3].max() < 1e-12
    assert difference[2:, 3:].min() > 1e-4


def test_what_inspect_shows_is_the_response_to_a_unit():
    mixer = make("ssm2d", WIDTH, directions=4)
    unit = torch.zeros(1, 3, 5, WIDTH, dtype=torch.float64)
    unit[:, 1, 2] = 1
    shown = mixer.inspect(unit)
    assert_close(mixer(unit)[0].movedim(-1, 0), shown["kernel"][:, 1:4, 2:7], 1e-12, "kernel")
    assert shown["quadrants"].shape == (4, WIDTH, 3, 5)
    assert_differs(shown["quadrants"][0], shown["quadrants"][1], 1e-2, "directions")


@pytest.mark.parametrize("complex_states", [False, True])
def test_it_starts_bounded_and_as_published(complex_states):
    torch.manual_seed(0)
    core = operators.create("ssm2d", 64, complex_states=complex_states).core
    assert core.A.shape == (4, 4, 1, 16)
    A, _, _ = core.maps()
    assert (A.abs() < 1).all()
    kernel = core.quadrants(32, 32).abs()
    assert kernel[:, -4:, -4:].max() < 1e-2 * kernel.max()
    assert core.C.std().item() == pytest.approx(1, rel=0.05)
    rest = {name for name, _ in core.named_parameters()} - core.no_weight_decay
    assert rest == set()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"directions": 3}, r"mixer\.directions=3 is not known: allowed are 1, 2, 4"),
        ({"state_dim": 0}, r"mixer\.state_dim=0 must be an integer >= 1"),
        ({"n_ssm": 3}, r"mixer\.n_ssm=3 must divide the width 16"),
        ({"share": 0}, r"mixer\.share=0\.0 must be a number >= 0\.001"),
        ({"complex_states": "yes"}, r"mixer\.complex_states='yes' is not known"),
        ({"residual": 3}, r"mixer\.residual=3 is not known"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create("ssm2d", 16, **params)
    assert "\n" not in str(caught.value)
