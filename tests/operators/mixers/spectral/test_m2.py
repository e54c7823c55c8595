import pytest
import torch

import operators
from operators import InputError
from operators.scan import orders
from operators.spectral.sequences import convolve, convolve_directly
from operators.testing.cases import noise, run_with_gradients
from operators.testing.checks import assert_close

WIDTH = 4


def make(*, shell=operators.BARE, **params):
    torch.manual_seed(0)
    mixer = operators.create("m2", WIDTH, shell=shell, **params).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return mixer


def image(*grid):
    return noise(2, *grid, WIDTH, dtype=torch.float64)


def definition(core, x):
    """Token by token along the order."""
    grid = x.shape[1:3]
    a, b = core.maps(x).chunk(2, -1)
    fields = orders.gather(torch.cat([x, a, b], -1), core.order)
    length = fields.shape[1]
    if core.conv is not None:
        taps = core.conv.weight.shape[-1]
        fields = torch.stack(
            [
                core.conv.bias
                + sum(core.conv.weight[:, 0, taps - 1 - k] * fields[:, t - k] for k in range(taps) if t - k >= 0)
                for t in range(length)
            ],
            1,
        )
    v, a, b = fields.chunk(3, -1)
    ahead, back = core.filters(length)
    z, outputs = v * a, []
    for t in range(length):
        total = core.skip * z[:, t]
        for s in range(length):
            total = total + (ahead[t - s] if s <= t else back[s - t - 1]) * z[:, s]
        outputs.append(b[:, t] * total)
    return orders.scatter(torch.stack(outputs, 1), core.order, *grid)


@pytest.mark.parametrize("params", [{}, {"order": "hilbert", "conv": 3}], ids=str)
@pytest.mark.parametrize("grid", [(3, 4), (1, 1)], ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    mixer, x = make(**params), image(*grid)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: definition(mixer.core, x))
    assert_close(y, expected, 1e-12, "y")
    for name, gradient in gradients.items():
        if grid == (1, 1) and name.startswith("core.backward_filter"):
            assert gradient.count_nonzero() == 0, name
        else:
            assert_close(gradient, wanted[name], 1e-10, f"gradient of {name}")


@pytest.mark.parametrize("length", [1, 6, 7])
def test_transforms_of_twice_the_length_do_not_wrap(length):
    u, ahead, back = (
        noise(*shape, WIDTH, dtype=torch.float64, seed=s) for s, shape in enumerate([(2, length), (length,), (length,)])
    )
    back[-1] = 1e3  # a distance that no two tokens have
    assert_close(convolve(u, ahead, back), convolve_directly(u, ahead, back), 1e-10, "y")


def test_the_order_is_the_one_that_was_asked_for():
    """Along columns it does to the transposed image what it does along rows."""
    rows, columns, x = make(order="row"), make(order="col"), image(3, 5)
    columns.load_state_dict(rows.state_dict())
    assert_close(columns(x.transpose(1, 2)), rows(x).transpose(1, 2), 1e-13, "y")


def test_a_reversed_order_with_exchanged_filters_differs_by_one_place():
    """Its own token belongs to the forward filter: the backward one begins at the next."""
    mixer = make()
    ahead, back = mixer.core.filters(5)
    u = torch.zeros(1, 5, WIDTH, dtype=torch.float64)
    u[:, 2] = 1
    y = convolve(u, ahead, back)[0]
    assert_close(y[2:], ahead[:3], 1e-13, "from its own place on")
    assert_close(y[:2], back[:2].flip(0), 1e-13, "before it")


def test_starts_and_wishes():
    core = operators.create("m2", 8, shell="published").core
    assert core.conv.weight.shape == (24, 1, 3)
    assert (core.forward_filter.frequencies[0] == 10).all()
    assert operators.create("m2", 8).core.conv is None
    rest = {name for name, _ in core.named_parameters()} - core.no_weight_decay
    assert rest == {"maps.weight", "maps.bias", "conv.weight", "conv.bias"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"order": "rows"}, "row"),
        ({"hidden": 0}, r"mixer\.hidden=0 must be an integer >= 1"),
        ({"conv": -1}, r"mixer\.conv=-1 must be an integer >= 0"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create("m2", 16, **params)
    assert "\n" not in str(caught.value)
