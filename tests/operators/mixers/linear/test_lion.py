"""`lion` against its definition by loops over pairs, its forms and its limits."""

import pytest
import torch

import operators
from operators import InputError
from operators.mixers.linear.lion import EPS
from operators.scan import orders
from operators.testing.cases import run, run_with_gradients
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.drawn import image, make

EXACT = 1e-12


def features(z, variant):
    if variant == "lit":
        return torch.where(z > 0, z + 1, torch.exp(z))
    shifted = z * torch.sigmoid(z) + 0.5
    return shifted / shifted.square().sum().sqrt()


def weight(core, index, along, head, i, j):
    """M at the places i and j of the order `index`, along which the tokens of one image are given."""
    if core.variant == "lit":
        return 1
    if core.variant == "d":
        return torch.sigmoid(core.decay[index, head]) ** abs(i - j)
    row = index * core.heads + head
    between = range(j, i) if j < i else range(i + 1, j + 1)
    product = torch.ones((), dtype=along.dtype)
    for r in between:
        product = product * (1 - torch.sigmoid(core.select.weight[row] @ along[r] + core.select.bias[row]))
    return product


def by_loops(mixer, x):
    core, (height, width) = mixer.core, x.shape[1:3]
    heads, size = core.heads, x.shape[-1] // core.heads
    images = []
    for tokens in x.flatten(1, 2):
        maps = tokens @ core.query_key.weight.T + core.query_key.bias
        rows = []
        for i in range(len(tokens)):
            parts = []
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                q = features(maps[i, : heads * size][part], core.variant) / size**0.5
                above, below = 0, EPS
                for j in range(len(tokens)):
                    k = features(maps[j, heads * size :][part], core.variant)
                    for index, name in enumerate(core.along):
                        order = orders.permutation(name, height, width)
                        place = order.argsort()
                        M = weight(core, index, tokens[order], head, int(place[i]), int(place[j]))
                        above = above + q @ k * M * tokens[j, part] / len(core.along)
                        below = below + q @ k * M / len(core.along)
                parts.append(above / below)
            rows.append(torch.cat(parts))
        images.append(torch.stack(rows))
    return torch.stack(images).view(x.shape)


@pytest.mark.parametrize(
    "params",
    [
        {"variant": "lit"},
        {"variant": "d"},
        {"variant": "s"},
        {"variant": "s", "orders": ["snake_row", "snake_col"]},
        {"variant": "d", "orders": ["hilbert", "col"]},
    ],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_the_definition(params):
    mixer, x = make("lion", 4, heads=2, **params), image(2, 3, width=4, batch=1)
    y, gradients = run_with_gradients(mixer, x)
    expected, wanted = run_with_gradients(mixer, x, through=lambda x: by_loops(mixer, x))
    assert_close(y, expected, EXACT, "y")
    for key, gradient in gradients.items():
        assert_close(gradient, wanted[key], EXACT, key)


@pytest.mark.parametrize("variant", ["lit", "d", "s"])
def test_a_constant_image_stays_as_it_is(variant):
    """The weights of a token's readings sum to one, but for what is added to their sum."""
    mixer = make("lion", heads=2, variant=variant)
    x = image(1, 1).expand(-1, 5, 7, -1)
    assert_close(run(mixer, x), x.contiguous(), 1e-5, "y of a constant image")


def test_rows_of_weights_cannot_vanish():
    """SiLU is at least −0.2785: whatever q and k are, their features are positive, and so are all products."""
    for scale in (1.0, 1e4):
        q, k = make("lion", 4, heads=1).core.features(scale * image(5, 7, width=4))
        shifted = torch.stack([q, k]).detach()
        assert shifted.min() > 0
        assert_close(shifted.square().sum(-1), torch.ones(2, 2, 5, 7, 1).double(), EXACT, "squared lengths")


def test_the_inverse_of_constant_decay_is_tridiagonal():
    """Of M read off token by token: with equal features y is M v over the sums of its rows."""
    mixer = make("lion", 36, heads=1)
    with torch.no_grad():
        mixer.core.query_key.weight.zero_()
        mixer.core.query_key.bias.zero_()
    matrix = run_on(mixer, torch.eye(36, dtype=torch.float64)[:, :35].T.reshape(1, 5, 7, 36))[0, :, :35]
    matrix = matrix / matrix.diagonal()[:, None]  # the diagonal of M is 1
    inverse = torch.linalg.inv(matrix)
    beyond = ~torch.ones(35, 35, dtype=torch.bool).tril(1).triu(-1)
    assert inverse[beyond].abs().max() < 1e-9 * inverse.abs().max()
    assert matrix[beyond].abs().min() > 0


def run_on(mixer, values):
    """The output for values u, from an image x of zeros, by token."""
    with torch.no_grad():
        return mixer.core(values, x=torch.zeros_like(values)).flatten(1, 2)


def test_permuting_tokens_permutes_outputs_without_decay_only():
    x = image(5, 7)
    order = torch.randperm(35, generator=torch.Generator().manual_seed(0))

    def permuted(x):
        return x.flatten(1, 2)[:, order].view(x.shape)

    for variant in ("lit", "d", "s"):
        mixer = make("lion", variant=variant)
        assert mixer.permutation_equivariant == (variant == "lit")
        if variant == "lit":
            assert_close(run(mixer, permuted(x)), permuted(run(mixer, x)), EXACT, "y of permuted tokens")
        else:
            assert_differs(run(mixer, permuted(x)), permuted(run(mixer, x)), 1e-2, "y of permuted tokens")


@pytest.mark.parametrize("variant", ["d", "s"])
def test_turning_the_image_by_half_a_turn_turns_the_output(variant):
    mixer, x = make("lion", variant=variant), image(5, 7)
    assert_close(run(mixer, x.flip(1, 2)), run(mixer, x).flip(1, 2), EXACT, "y of the turned image")


def test_the_published_shell_has_the_parameters_of_a_vision_transformer():
    """Four maps with bias, and a decay per head or a map to one per head."""
    width, heads = 24, 3
    for variant, more in (("lit", 0), ("d", heads), ("s", heads * (width + 1))):
        mixer = operators.create("lion", width, shell="published", heads=heads, variant=variant)
        assert mixer.cost(4, 4).parameters == 4 * width * (width + 1) + more


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"variant": "lite"}, "did you mean 'lit'"),
        ({"orders": ["row_r"]}, "'row_r' must be without '_r': both ways are read"),
        ({"heads": 4}, "mixer.heads=4 must divide the width 6"),
    ],
    ids=str,
)
def test_impossible_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        make("lion", **params)
