"""Mixers by matrices over tokens, against their definitions by loops over tokens."""

import math

import pytest
import torch

import operators
from operators import InputError
from operators.testing.cases import run_with_gradients
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.drawn import image, make, set_to

WIDTH = 6
MIXERS = ("mlp_mixer", "resmlp", "gmlp")
GRIDS = [(3, 5), (4, 2), (1, 1)]


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def across(linear, rows):
    """Weighted sums of rows (M, D), one for each row of the weight, plus a number for each."""
    return torch.stack(
        [
            sum(weight * row for weight, row in zip(weights, rows, strict=True)) + constant
            for weights, constant in zip(linear.weight, linear.bias, strict=True)
        ]
    )


def mlp_mixer(core, rows):
    return across(core.last, gelu(across(core.first, rows)))


def resmlp(core, rows):
    return across(core.matrix, rows)


def gmlp(core, rows):
    v = gelu(rows)
    centred = v - v.mean(-1, keepdim=True)
    normal = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return across(core.matrix, normal * core.norm.weight + core.norm.bias)


PLAIN = {"mlp_mixer": mlp_mixer, "resmlp": resmlp, "gmlp": gmlp}


def definition(mixer):
    def by_image(x):
        return torch.stack([PLAIN[mixer.card.name](mixer.core, rows).view(x.shape[1:]) for rows in x.flatten(1, 2)])

    return by_image


def bare(name, grid=(5, 7), **params):
    return make(name, WIDTH, grid=grid, **params)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("name", "params"), [*((name, {}) for name in MIXERS), ("mlp_mixer", {"hidden": 11})], ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(name, params, grid):
    mixer, x = bare(name, grid, **params), image(*grid)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=definition(mixer))
    assert_close(y, expected, 1e-11, "y")
    for parameter, gradient in gradients.items():
        assert_close(gradient, wanted[parameter], 1e-11, f"gradient of {parameter}")


@pytest.mark.parametrize("name", MIXERS)
def test_channels_are_treated_alike(name):
    """Any permutation of the channels commutes, as one of the norm's numbers goes with it."""
    mixer, x = bare(name), image(5, 7)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    y = mixer(x)[..., order]
    if name == "gmlp":
        for parameter in (mixer.core.norm.weight, mixer.core.norm.bias):
            set_to(parameter[order].clone(), parameter)
    assert_close(mixer(x[..., order]), y, 1e-12, "y of permuted channels")


@pytest.mark.parametrize("name", ["mlp_mixer", "resmlp"])
def test_channels_do_not_mix(name):
    mixer, x = bare(name), image(5, 7)
    other = x.clone()
    other[..., 0] += 1
    assert_close(mixer(other)[..., 1:], mixer(x)[..., 1:], 1e-13, "other channels")
    assert_differs(mixer(other)[..., 0], mixer(x)[..., 0], 1e-3, "the channel")


@pytest.mark.parametrize("name", MIXERS)
def test_permuted_tokens_need_permuted_weights(name):
    mixer, x = bare(name), image(5, 7)
    order = torch.randperm(35, generator=torch.Generator().manual_seed(5))

    def permuted(field):
        return field.flatten(1, 2)[:, order].view(field.shape)

    expected = permuted(mixer(x))
    assert_differs(mixer(permuted(x)), expected, 1e-2, "y before")
    core = mixer.core
    reads, writes = (core.first, core.last) if name == "mlp_mixer" else (core.matrix, core.matrix)
    set_to(reads.weight[:, order].clone(), reads.weight)
    set_to(writes.weight[order].clone(), writes.weight)
    set_to(writes.bias[order].clone(), writes.bias)
    assert_close(mixer(permuted(x)), expected, 1e-12, "y of permuted tokens")


@pytest.mark.parametrize("name", MIXERS)
def test_tokens_are_numbered_row_by_row(name):
    """What passes from the token in row 1 and column 2 of 5 × 7 to that in row 3 and column 4, of numbers 9 and 25."""
    mixer, x = bare(name), image(5, 7)
    core = mixer.core
    if name == "mlp_mixer":
        set_to(0.0, core.first.weight[:, 9], core.last.weight[25])
    else:
        set_to(0.0, core.matrix.weight[25, 9])
    other = x.clone()
    other[:, 1, 2] += 1
    moved = (mixer(other) - mixer(x)).abs().amax((0, -1))
    assert moved[3, 4] < 1e-13
    if name != "mlp_mixer":
        assert (moved > 1e-13).sum() == 34


def test_the_hidden_layer_is_half_as_wide_as_the_model_unless_told_otherwise():
    for width, expand, hidden in ((6, 1, 3), (6, 2, 3), (1, 1, 1), (7, 1, 3)):
        shell = {"expand": expand}
        core = operators.create("mlp_mixer", width, grid=(3, 4), shell=shell).core
        assert core.first.weight.shape == (hidden, 12)
        assert core.last.weight.shape == (12, hidden)
    assert operators.create("mlp_mixer", 6, grid=(3, 4), hidden=5).cost(3, 4).state_elements == 5 * 6


def test_gmlp_at_its_start_passes_its_gate_alone():
    """Near zero and one; exactly so with W = 0, in the published shell and in the common one."""
    for shell in ("published", "common"):
        mixer = operators.create("gmlp", 8, grid=(5, 7), shell=shell).double()
        x = image(5, 7, width=8)
        near = mixer(x)
        set_to(0.0, mixer.core.matrix.weight)
        _, z = mixer.shell.enter(x)
        assert_close(mixer(x), mixer.shell.leave(torch.ones_like(z), z), 1e-15, "y")
        assert_close(near, mixer(x), 1e-4, "y at the start")


def test_gmlp_gates_a_token_by_another_as_its_matrix_says():
    """In the published shell the Jacobian from token j to token i ≠ j is W_ij times a matrix of z_i and v_j."""
    mixer, x = make("gmlp", 8, grid=(2, 3), shell="published"), image(2, 3, width=8, batch=1)
    weight = mixer.core.matrix.weight.detach().clone()
    jacobian = torch.autograd.functional.jacobian(mixer, x)[0, ..., 0, :, :, :].reshape(6, 8, 6, 8)
    set_to(2 * weight[1, 4], mixer.core.matrix.weight[1, 4])
    twice = torch.autograd.functional.jacobian(mixer, x)[0, ..., 0, :, :, :].reshape(6, 8, 6, 8)
    assert_close(twice[1, :, 4], 2 * jacobian[1, :, 4], 1e-12, "from token 4 to token 1")
    assert_close(twice[2], jacobian[2], 1e-13, "to token 2")
    assert_differs(jacobian[1, :, 4], torch.zeros(8, 8, dtype=torch.float64), 0.5, "from token 4 to token 1")


def test_starts_of_the_authors():
    cores = {name: operators.create(name, 256, grid=(20, 20), shell=operators.BARE).core for name in MIXERS}
    for linear, std in (
        (cores["resmlp"].matrix, 0.02),
        (cores["gmlp"].matrix, 1e-6),
        (cores["mlp_mixer"].first, 400**-0.5),
        (cores["mlp_mixer"].last, 128**-0.5),
    ):
        assert linear.weight.std().item() == pytest.approx(std, rel=0.03)
        assert linear.bias.unique().tolist() == [1.0 if std == 1e-6 else 0.0]


@pytest.mark.parametrize("name", MIXERS)
def test_pictures_are_the_weights(name):
    mixer, x = bare(name), image(5, 7)
    shown = mixer.inspect(x)
    if name == "mlp_mixer":
        assert torch.equal(shown["reads"][2, 1, 3], mixer.core.first.weight[2, 10])
        assert torch.equal(shown["writes"][2, 1, 3], mixer.core.last.weight[10, 2])
        assert shown["reads"].shape == shown["writes"].shape == (3, 5, 7)
    else:
        assert torch.equal(shown["map"], mixer.core.matrix.weight)
        assert torch.equal(shown["constant"], mixer.core.matrix.bias.view(5, 7))


def test_costs():
    """With N = 35 tokens of D = 8 channels."""
    costs = {name: operators.create(name, 8, grid=(5, 7), shell=operators.BARE).cost(5, 7) for name in MIXERS}
    assert costs["mlp_mixer"] == operators.Cost(
        mixing_macs=2 * 35 * 4 * 8, state_elements=4 * 8, parameters=2 * 35 * 4 + 35 + 4
    )
    assert costs["resmlp"] == operators.Cost(mixing_macs=35**2 * 8, state_elements=35 * 8, parameters=35**2 + 35)
    assert costs["gmlp"] == operators.Cost(mixing_macs=35**2 * 8, state_elements=35 * 8, parameters=35**2 + 35 + 16)


@pytest.mark.parametrize("name", MIXERS)
def test_they_are_bound_to_their_grid(name):
    with pytest.raises(InputError, match=rf"mixer {name} depends on the grid: give grid=\(H, W\)"):
        operators.create(name, WIDTH)
    with pytest.raises(InputError, match=rf"mixer {name} was made for a \(5, 7\) grid and cannot serve \(7, 5\)"):
        bare(name)(image(7, 5))


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("mlp_mixer", {"hidden": 0}, r"mixer\.hidden=0 must be an integer >= 1"),
        ("mlp_mixer", {"hidden": 2.5}, r"mixer\.hidden=2\.5 must be an integer >= 1"),
        ("mlp_mixer", {"hiden": 3}, r"mixer mlp_mixer has no 'hiden': allowed are hidden; did you mean 'hidden'\?"),
        ("resmlp", {"hidden": 3}, r"mixer resmlp has no 'hidden': allowed are none"),
    ],
    ids=str,
)
def test_wrong_parameters_are_refused_in_one_line(name, params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create(name, WIDTH, grid=(5, 7), **params)
    assert "\n" not in str(caught.value)
