"""`vision_rwkv` against its definition by loops, its chunks against all pairs, its shift and its limits."""

import math

import pytest
import torch

import operators
from operators import InputError
from operators.mixers.linear.vision_rwkv import shifted, wkv, wkv_reference
from operators.scan import orders
from operators.testing.cases import noise, run, run_with_gradients
from operators.testing.checks import assert_close, assert_differs, assert_finite
from tests.operators.mixers.drawn import image, make, set_to

EXACT = 1e-12
NAME = "vision_rwkv"


def mixed(core, x, name):
    """x mixed with what its quarters of channels find one token further, by loops."""
    if not core.shift:
        return x
    _, height, width, channels = x.shape
    mu, rows = core.get_parameter(name), []
    for i in range(height):
        row = []
        for j in range(width):
            neighbours = []
            for c in range(channels):
                quarter = next(q for q in range(4) if c < channels * (q + 1) // 4)
                a, b = ((i, j - 1), (i, j + 1), (i - 1, j), (i + 1, j))[quarter]
                inside = 0 <= a < height and 0 <= b < width
                neighbours.append(x[:, a, b, c] if inside else torch.zeros_like(x[:, 0, 0, 0]))
            row.append(mu * x[:, i, j] + (1 - mu) * torch.stack(neighbours, -1))
        rows.append(torch.stack(row, 1))
    return torch.stack(rows, 1)


def by_loops(mixer, x):
    core, (height, width) = mixer.core, x.shape[1:3]
    tokens = height * width
    order = orders.permutation(core.order, height, width)
    k = (mixed(core, x, "mix_key") @ core.key.weight.T).flatten(1, 2)[:, order]
    v = x if core.value is None else mixed(core, x, "mix_value") @ core.value.weight.T
    v, outputs = v.flatten(1, 2)[:, order], []
    for t in range(tokens):
        above, below = 0, 0
        for i in range(tokens):
            exponent = core.own / tokens if i == t else -(abs(t - i) - 1) * core.decay / tokens
            weight = torch.exp(k[:, i] + exponent)
            above, below = above + weight * v[:, i], below + weight
        outputs.append(above / below)
    y = torch.stack(outputs, 1)[:, order.argsort()].view(x.shape)
    if core.value is not None:
        gate = torch.sigmoid(mixed(core, x, "mix_gate") @ core.receptance.weight.T)
        y = (gate * y) @ core.output.weight.T
    return y


@pytest.mark.parametrize("params", [{}, {"layer": True}, {"order": "hilbert", "shift": False}], ids=str)
@pytest.mark.parametrize("grid", [(3, 6), (1, 3), (1, 1)], ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    mixer, x = make(NAME, **params), image(*grid)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: by_loops(mixer, x))
    assert_close(y, expected, EXACT, "y")
    for key, gradient in gradients.items():
        if grid == (1, 1) and key in ("core.decay", "core.own", "core.key.weight", "core.mix_key"):
            assert gradient.abs().max() < EXACT, f"{key}: one token reads itself, whatever its weight"
        else:
            assert_close(gradient, wanted[key], EXACT, key)


@pytest.mark.parametrize("tokens", [2, 16, 17, 33, 50, 130])
@pytest.mark.parametrize("strength", [3.0, -50.0, 50.0])
def test_chunks_give_what_all_pairs_give(tokens, strength):
    given = [noise(2, tokens, 3, dtype=torch.float64, seed=seed) for seed in (1, 2)]
    given += [strength * (1 + noise(3, dtype=torch.float64, seed=3).abs()) / tokens, noise(3, dtype=torch.float64)]
    leaves = [t.clone().requires_grad_() for t in given]
    results = []
    for means in (wkv, wkv_reference):
        y = means(*leaves)
        results.append([y.detach(), *torch.autograd.grad(y, leaves, noise(*y.shape, dtype=y.dtype, seed=4))])
    for name, computed, expected in zip(("y", "dk", "dv", "ddecay", "down"), *results, strict=True):
        if name == "ddecay" and tokens == 2:
            assert computed.abs().max() < EXACT  # neighbours alone, at which the distance does not count
        else:
            assert_close(computed, expected, EXACT, name)


@pytest.mark.parametrize("strength", [-60.0, 0.0, 60.0])
def test_huge_keys_overflow_nowhere(strength):
    """In float32: relative to the greatest key so far, on either side."""
    k, v = 1e4 * noise(1, 50, 4), noise(1, 50, 4, seed=5)
    k[:, 20:40] -= 1e5
    decay, own = torch.full((4,), strength / 50), torch.zeros(4)
    leaf = k.clone().requires_grad_()
    y = wkv(leaf, v, decay, own)
    (gradient,) = torch.autograd.grad(y.sum(), leaf)
    assert_finite(gradient, "gradient of the keys")
    expected = wkv_reference(k.double(), v.double(), decay.double(), own.double())
    assert_close(y.detach().double(), expected, 1e-5, "y")


def test_weights_sum_to_one():
    mixer, x = make(NAME), image(5, 7)
    constant = image(1, 1).expand_as(x)
    assert_close(mixer.core(constant, x=x), constant.contiguous(), EXACT, "y of a constant field")


def test_without_shift_half_a_turn_of_the_image_turns_the_output():
    x = image(5, 7)
    for shift in (True, False):
        mixer = make(NAME, shift=shift)
        turned, expected = run(mixer, x.flip(1, 2)), run(mixer, x).flip(1, 2)
        if shift:
            assert_differs(turned, expected, 1e-3, "y of the turned image")
        else:
            assert_close(turned, expected, EXACT, "y of the turned image")


def test_a_mix_of_one_is_no_shift():
    mixer, x = make(NAME, layer=True), image(5, 7)
    plain = make(NAME, layer=True, shift=False)
    plain.load_state_dict(mixer.state_dict(), strict=False)
    set_to(1.0, mixer.core.mix_key, mixer.core.mix_value, mixer.core.mix_gate)
    assert_close(run(mixer, x), run(plain, x), EXACT, "y")


def test_the_shift_takes_a_neighbour_for_each_quarter():
    x = image(3, 4, width=7)
    y = shifted(x)
    assert torch.equal(y[:, :, 1:, :1], x[:, :, :-1, :1])
    assert torch.equal(y[:, :, :-1, 1:3], x[:, :, 1:, 1:3])
    assert torch.equal(y[:, 1:, :, 3:5], x[:, :-1, :, 3:5])
    assert torch.equal(y[:, :-1, :, 5:], x[:, 1:, :, 5:])
    border = (y[:, :, 0, :1], y[:, :, -1, 1:3], y[:, 0, :, 3:5], y[:, -1, :, 5:])
    assert not any(part.any() for part in border)


@pytest.mark.parametrize("order", ["row", "hilbert"])
def test_influence_is_the_centres_row_of_weights(order):
    mixer, x = make(NAME, order=order), image(4, 5)
    weights = mixer.inspect(x)["influence"]
    assert_close(torch.einsum("bdhw,bhwd->bd", weights, x), run(mixer, x)[:, 2, 2], EXACT, "y at the centre")


def test_the_start_is_that_of_the_released_models_halfway_through():
    core = operators.create(NAME, 16, layer=True).core
    assert core.decay[0] == -5
    assert core.decay[-1] == 3
    levels = math.log(0.3) + torch.tensor([0.0, 0.5, -0.5])
    assert_close(core.own[:3].detach(), levels, 1e-6, "b")
    quarter = torch.tensor(4 / 16)  # channel 4 of 16
    assert_close(core.mix_key[4].detach(), quarter.sqrt(), 1e-6, "mu of keys")
    assert_close(core.mix_value[4].detach(), quarter.sqrt() + 0.15, 1e-6, "mu of values")
    assert_close(core.mix_gate[4].detach(), quarter.sqrt().sqrt(), 1e-6, "mu of the gate")


def test_the_published_preset_has_the_whole_layer():
    assert operators.create(NAME, 16).core.value is None
    assert operators.create(NAME, 16, shell="published").core.value is not None
    assert operators.create(NAME, 16, shell="published", layer=False).core.value is None


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"order": "row_r"}, r"mixer\.order='row_r' must be an order without '_r'"),
        ({"order": "rows"}, r"did you mean 'row'"),
        ({"shift": 1.5}, r"mixer\.shift=1\.5"),
        ({"layer": "all"}, r"mixer\.layer='all'"),
    ],
    ids=str,
)
def test_impossible_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        make(NAME, **params)
