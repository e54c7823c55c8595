"""`mambavision` against its definition by loops: a scan and a convolution side by side."""

import pytest
import torch

import operators
from operators import InputError
from operators.scan import orders
from operators.testing.cases import run
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.drawn import image, make
from tests.operators.mixers.scan.plain import assert_defined_by, on_grid, plain

NAME = "mambavision"


def made(**params):
    return make(NAME, state_dim=2, backend="chunked", **params)


def by_loops(mixer):
    core = mixer.core
    (branch,) = core.branches

    def mixed(x):
        height, width, channels = x.shape
        walk = [divmod(token, width) for token in orders.permutation(core.order, height, width).tolist()]
        weight, v = core.conv.weight[:, 0], []
        reach = weight.shape[1] // 2
        for t in range(len(walk)):
            total = torch.zeros(channels, dtype=x.dtype)
            for k in range(-reach, reach + 1):
                if 0 <= t + k < len(walk):
                    total = total + weight[:, k + reach] * x[walk[t + k]]
            v.append(total * torch.sigmoid(total))
        half, turn = channels // 2, -1 if branch.backwards else 1
        scanned = plain(branch, [each[:half] for each in v][::turn])[::turn]
        outputs = {place: torch.cat([y, each[half:]]) for place, y, each in zip(walk, scanned, v, strict=True)}
        return on_grid(outputs, height, width)

    return mixed


@pytest.mark.parametrize(
    ("grid", "params"),
    [((3, 5), {}), ((4, 3), {"order": "hilbert_r", "conv": 5, "rank": 2}), ((1, 3), {"conv": 1}), ((1, 1), {})],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    mixer = made(**params)
    assert_defined_by(mixer, by_loops(mixer), image(*grid))


def test_the_halves_do_not_meet():
    mixer, x = made(), image(4, 5)
    for half, other in ((slice(3), slice(3, None)), (slice(3, None), slice(3))):
        changed = x.clone()
        changed[..., half] += 1
        assert torch.equal(run(mixer, changed)[..., other], run(mixer, x)[..., other])


def test_half_a_turn_of_the_image_is_not_one_of_the_output():
    mixer, x = made(), image(4, 5)
    with torch.no_grad():
        mixer.core.conv.weight.copy_(mixer.core.conv.weight + mixer.core.conv.weight.flip(-1))
    turned, expected = run(mixer, x.flip(1, 2)), run(mixer, x).flip(1, 2)
    assert_differs(turned[..., :3], expected[..., :3], 1e-3, "what is scanned")
    assert_close(turned[..., 3:], expected[..., 3:].contiguous(), 1e-12, "what is convolved")


def test_steps_start_between_a_thousandth_and_a_tenth():
    """What the authors' trunk undoes, when it sets every bias to zero."""
    (branch,) = operators.create(NAME, 64, shell="published").core.branches
    start = torch.nn.functional.softplus(branch.step.bias)
    assert 0.999e-3 < start.min() < start.max() < 0.1001
    assert (branch.state_dim, branch.rank) == (8, 4)


def test_what_pictures_show():
    shown = made().inspect(image(4, 5))
    assert {key: tuple(maps.shape) for key, maps in shown.items()} == {"step": (2, 1, 4, 5), "influence": (2, 1, 4, 5)}


@pytest.mark.parametrize(
    ("width", "params", "message"),
    [
        (7, {}, r"mixer mambavision needs an even width, of two halves, not 7"),
        (8, {"conv": 4}, r"mixer\.conv=4 must be odd"),
        (8, {"order": "rows"}, r"did you mean 'row'"),
        (8, {"state_dim": 0}, r"mixer\.state_dim=0 must be an integer >= 1"),
    ],
    ids=str,
)
def test_impossible_parameters_are_refused(width, params, message):
    with pytest.raises(InputError, match=message):
        make(NAME, width, **params)
