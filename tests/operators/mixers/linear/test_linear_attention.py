import pytest
import torch

import operators
from operators import InputError
from operators.linear import products
from operators.linear import products_reference as reference
from operators.linear.features import elu_plus_one
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.linear.plain import GRIDS, assert_is, average, bare, by_image, elu, heads_of, image, relu

NAME = "linear_attention"
MAPS = {"elu": elu, "relu": relu}


def definition(feature_map):
    def one(mixer, tokens, grid):
        core, phi = mixer.core, MAPS[feature_map]
        q, k = heads_of(core.qk, tokens, core.heads)
        v = tokens.chunk(core.heads, dim=-1)
        return torch.cat([average(phi(q[h]), phi(k[h]), v[h], 1e-15) for h in range(core.heads)], dim=-1)

    return by_image(one)


@pytest.mark.parametrize("feature_map", MAPS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, feature_map):
    mixer = bare(NAME, heads=2, feature_map=feature_map)
    assert_is(mixer, image(*grid), definition(feature_map))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_map_of_inspect_gives_the_output_and_averages(grid):
    mixer, x = bare(NAME, heads=2), image(*grid)
    weights = mixer.inspect(x)["map"]
    assert (weights >= 0).all()
    assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]), 1e-13, "sums of rows")
    v = x.flatten(1, 2).unflatten(-1, (2, 8)).transpose(1, 2)
    assert_close(mixer(x), (weights @ v).transpose(1, 2).reshape(x.shape), 1e-13, "y")


def test_the_map_of_a_head_has_no_higher_rank_than_the_head_has_channels():
    weights = bare(NAME, heads=4).inspect(image(5, 7))["map"]
    values = torch.linalg.svdvals(weights)
    assert (values[..., 4:] < 1e-14 * values[..., :1]).all()
    assert (values[..., 3] > 1e-10 * values[..., 0]).all()


def test_doubling_all_tokens_changes_nothing():
    mixer, x = bare(NAME), image(5, 7)
    assert_close(mixer(x.repeat(1, 2, 1, 1)), mixer(x).repeat(1, 2, 1, 1), 1e-13, "y of doubled tokens")


def test_the_size_of_a_query_under_relu_does_not_matter():
    mixer, x = bare(NAME, feature_map="relu"), image(5, 7)
    with torch.no_grad():
        expected = mixer(x)
        mixer.core.qk.weight[:16] *= 7.3
        mixer.core.qk.bias[:16] *= 7.3
        assert_close(mixer(x), expected, 1e-13, "y of longer queries")


def test_a_token_without_features_reads_nothing():
    mixer, x = bare(NAME, feature_map="relu"), image(5, 7)
    with torch.no_grad():
        mixer.core.qk.weight[:16] = 0
        mixer.core.qk.bias[:16] = -1
        assert mixer(x).count_nonzero() == 0


def test_equal_keys_average_the_values():
    mixer, x = bare(NAME), image(5, 7)
    with torch.no_grad():
        mixer.core.qk.weight[16:] = 0
    assert_close(mixer(x), x.mean((1, 2), keepdim=True).expand_as(x), 1e-13, "y")


def test_the_feature_map_keeps_small_values():
    """ELU + 1 in float32, taken literally, is zero below −17, and 5 % off at −14."""
    x = torch.tensor([-30.0, -14.0, -1.0, 0.0, 3.0])
    assert_close(elu_plus_one(x), torch.where(x > 0, x + 1, x.double().exp()).float(), 1e-7, "features")
    assert (elu_plus_one(x)[:2] / x[:2].double().exp() - 1).abs().max() < 1e-6


# ---------------------------------------------------------------- products


@pytest.mark.parametrize(("tokens", "features", "values"), [(3, 8, 8), (8, 8, 8), (40, 8, 8), (9, 16, 8), (12, 16, 8)])
def test_both_associations_are_the_map_of_all_pairs(tokens, features, values):
    generator = torch.Generator().manual_seed(0)
    widths = (features, features, values)
    q, k, v = (torch.rand(2, 3, tokens, width, dtype=torch.float64, generator=generator) for width in widths)
    assert_close(products.mixed(q, k, v), reference.mixing_map(q, k) @ v, 1e-14, "mixed")
    assert_close(products.averaged(q, k, v, 1e-3), reference.averaging_map(q, k, 1e-3) @ v, 1e-14, "averaged")
    fewest = min(tokens**2 * (features + values), 2 * tokens * features * values)
    assert products.product_macs(tokens, features, values) == fewest


def test_many_tokens_in_float32():
    mixer, x = bare(NAME, 32, heads=2), image(64, 64, width=32, batch=1)
    assert_close(mixer.float()(x.float()).double(), mixer.double()(x), 1e-6, "y of 4,096 tokens")


def test_costs_grow_as_tokens():
    small, large = (operators.create(NAME, 64, heads=2).core.core_cost(16, side) for side in (16, 32))
    assert small.mixing_macs == 256 * 64 * (2 * 32 + 1)
    assert large.mixing_macs == 2 * small.mixing_macs
    assert large.state_elements == small.state_elements == 64 * 33
    assert operators.create(NAME, 64, shell="published").cost(1, 1).parameters == 4 * 64**2 + 4 * 64


def test_feature_maps_differ():
    assert_differs(bare(NAME)(image(5, 7)), bare(NAME, feature_map="relu")(image(5, 7)), 1e-2, "y")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"heads": 3}, r"mixer\.heads=3 must divide the width 16; nearest: 2 and 4"),
        (
            {"feature_map": "relo"},
            r"mixer\.feature_map='relo' is not known: .*; did you mean 'relu'",
        ),
        ({"eps": 1}, r"mixer linear_attention has no 'eps': allowed are feature_map, heads"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create(NAME, 16, **params)
    assert "\n" not in str(caught.value)
