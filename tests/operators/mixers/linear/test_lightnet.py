import pytest
import torch

import operators
from operators import InputError
from operators.testing.checks import assert_close
from tests.operators.mixers.linear.plain import GRIDS, assert_is, bare, by_image, heads_of, image

NAME = "lightnet"


def one(mixer, tokens, grid):
    core, outputs = mixer.core, []
    q, k = heads_of(core.qk, tokens, core.heads)
    for h, v in enumerate(tokens.chunk(core.heads, dim=-1)):
        state, total = 0, 0
        for key, value in zip(k[h].exp(), v, strict=True):
            state, total = state + torch.outer(key, value), total + key
        read = q[h] / (1 + (-q[h]).exp())
        outputs.append(torch.stack([query @ (state / total[:, None]) for query in read]))
    return torch.cat(outputs, dim=-1)


@pytest.mark.parametrize("key_width", [None, 3])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, key_width):
    assert_is(bare(NAME, heads=2, key_width=key_width), image(*grid), by_image(one))


def test_equal_keys_give_every_channel_of_the_keys_the_mean():
    mixer, x = bare(NAME, heads=1), image(5, 7)
    with torch.no_grad():
        mixer.core.qk.weight[16:] = 0
    q, _ = mixer.core.queries_keys(x, x)
    gain = (q * q.sigmoid()).sum(-1).view(2, 5, 7, 1)
    assert_close(mixer(x), gain * x.mean((1, 2), keepdim=True), 1e-12, "y")


def test_the_map_of_inspect_gives_the_output():
    mixer, x = bare(NAME, heads=2, key_width=5), image(3, 5)
    v = x.flatten(1, 2).unflatten(-1, (2, 8)).transpose(1, 2)
    expected = (mixer.inspect(x)["map"] @ v).transpose(1, 2).reshape(x.shape)
    assert_close(mixer(x), expected, 1e-13, "y")


def test_a_constant_added_to_the_keys_and_doubled_tokens_change_nothing():
    mixer, x = bare(NAME), image(5, 7)
    y = mixer(x)
    assert_close(mixer(x.repeat(1, 2, 1, 1)), y.repeat(1, 2, 1, 1), 1e-13, "y of doubled tokens")
    with torch.no_grad():
        mixer.core.qk.bias[16:] += 700
    assert_close(mixer(x), y, 1e-11, "y of larger keys")


def test_many_tokens_in_float32():
    mixer, x = bare(NAME, 32, heads=2), image(64, 64, width=32, batch=1)
    assert_close(mixer.float()(x.float()).double(), mixer.double()(x), 1e-5, "y of 4,096 tokens")


def test_the_state_grows_with_the_keys_and_not_with_the_tokens():
    costs = [operators.create(NAME, 64, heads=2, key_width=width).core.core_cost(16, 16) for width in (8, 16)]
    assert [cost.state_elements for cost in costs] == [2 * 8 * 33, 2 * 16 * 33]
    assert [cost.mixing_macs for cost in costs] == [2 * 256 * 2 * 8 * 32, 2 * 256 * 2 * 16 * 32]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"heads": 3}, r"mixer\.heads=3 must divide the width 16; nearest: 2 and 4"),
        ({"key_width": 0}, r"mixer\.key_width=0 must be an integer >= 1"),
        ({"key_widht": 8}, r"mixer lightnet has no 'key_widht': .*; did you mean 'key_width'\?"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create(NAME, 16, **params)
    assert "\n" not in str(caught.value)
