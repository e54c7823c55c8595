import pytest
import torch
import torch.nn.functional as F

import operators
from operators import InputError
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.linear.plain import GRIDS, assert_is, average, bare, by_image, elu, heads_of, image, turned

NAME = "rala"


def angles_of(height, width, channels):
    """Of every pair of a head's d channels at every token, row by row, from the definition."""
    angles, quarter = torch.zeros(height * width, channels // 2, dtype=torch.float64), channels // 4
    for i in range(height):
        for j in range(width):
            for t in range(quarter):
                frequency = 10000 ** (-t / max(quarter - 1, 1))
                angles[i * width + j, t] = i * frequency
                angles[i * width + j, quarter + t] = j * frequency
    return angles


def definition(rope):
    def one(mixer, tokens, grid):
        core, outputs = mixer.core, []
        q, k = (elu(part) for part in heads_of(core.qk, tokens, core.heads))
        angles = angles_of(*grid, core.head_width)
        for h, v in enumerate(tokens.chunk(core.heads, dim=-1)):
            mean = sum(q[h]) / len(tokens)
            scores = torch.stack([(mean @ key / core.head_width**0.5).exp() for key in k[h]])
            weighted = k[h] * (len(tokens) * scores / scores.sum())[:, None]
            rotated = (turned(q[h], angles), turned(weighted, angles)) if rope else None
            outputs.append(average(q[h], weighted, v, 1e-6, rotated=rotated))
        return torch.cat(outputs, dim=-1)

    return by_image(one)


@pytest.mark.parametrize("rope", [True, False])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, rope):
    assert_is(bare(NAME, heads=2, rope=rope), image(*grid), definition(rope))


def test_the_convolution_of_the_values_is_added_in_the_published_shell_alone():
    mixer, x = bare(NAME, lepe=True), image(5, 7)
    core = mixer.core
    local = F.conv2d(x.movedim(-1, 1), core.local.weight, core.local.bias, padding=2, groups=16).movedim(1, -1)
    y, core.local = mixer(x), None
    assert_close(y - mixer(x), local, 1e-12, "what the convolution adds")
    assert operators.create(NAME, 16, shell="published").core.local is not None
    assert operators.create(NAME, 16).core.local is None
    assert operators.create(NAME, 64, shell="published").cost(7, 7).parameters == 5 * 64**2 + 5 * 64 + 26 * 64


def test_weights_are_one_on_average_and_prefer_what_is_asked_for():
    mixer, x = bare(NAME, heads=2), image(5, 7)
    shown = mixer.inspect(x)
    weights = shown["weights"]
    assert weights.shape == (2, 2, 5, 7)
    assert_close(weights.mean((2, 3)), torch.ones(2, 2, dtype=torch.float64), 1e-13, "mean weights")
    q, k = (elu(part) for part in mixer.core.queries_keys(x, x))
    scores = (k @ q.mean(-2, keepdim=True).mT)[..., 0]
    assert torch.equal(weights.flatten(2).argsort(-1), scores.argsort(-1))


def test_the_map_of_a_head_keeps_its_rank_and_its_rows_average_without_rope():
    weights = bare(NAME, heads=4, rope=False).inspect(image(5, 7))["map"]
    assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]), 1e-5, "sums of rows")
    values = torch.linalg.svdvals(weights)
    assert (values[..., 4:] < 1e-14 * values[..., :1]).all()


@pytest.mark.parametrize("rope", [True, False])
def test_the_map_of_inspect_gives_the_output(rope):
    mixer, x = bare(NAME, heads=2, rope=rope), image(3, 5)
    v = x.flatten(1, 2).unflatten(-1, (2, 8)).transpose(1, 2)
    expected = (mixer.inspect(x)["map"] @ v).transpose(1, 2).reshape(x.shape)
    assert_close(mixer(x), expected, 1e-13, "y")


def test_equal_keys_average_the_values():
    mixer, x = bare(NAME, rope=False), image(5, 7)
    with torch.no_grad():
        mixer.core.qk.weight[16:] = 0
    assert_close(mixer(x), x.mean((1, 2), keepdim=True).expand_as(x), 1e-5, "y")


def test_doubling_all_tokens_changes_nothing():
    mixer, x = bare(NAME, rope=False), image(5, 7)
    assert_close(mixer(x.repeat(1, 2, 1, 1)), mixer(x).repeat(1, 2, 1, 1), 1e-13, "y of doubled tokens")
    assert mixer.permutation_equivariant
    assert not operators.create(NAME, 16).permutation_equivariant


def test_every_head_sees_both_axes():
    mixer = bare(NAME, heads=2)
    with torch.no_grad():
        mixer.core.qk.weight.zero_()
    weights = mixer.inspect(image(4, 5, batch=1))["map"][0].view(2, 4, 5, 4, 5)
    for head in weights:
        assert_close(head[0, 1, 2, 2], head[1, 3, 3, 4], 1e-13, "weights at the same distance")
        assert_differs(head[0, 0, 0, 0], head[0, 0, 2, 0], 1e-3, "weights of another row")
        assert_differs(head[0, 0, 0, 0], head[0, 0, 0, 2], 1e-3, "weights of another column")


def test_many_tokens_in_float32():
    mixer, x = bare(NAME, 32, heads=2), image(64, 64, width=32, batch=1)
    assert_close(mixer.float()(x.float()).double(), mixer.double()(x), 1e-5, "y of 4,096 tokens")


@pytest.mark.parametrize(
    ("width", "params", "message"),
    [
        (16, {"heads": 3}, r"mixer\.heads=3 must divide the width 16; nearest: 2 and 4"),
        (12, {"heads": 2}, r"mixer\.rope=True needs a head width divisible by 4, not 6"),
        (16, {"rope": 1.5}, r"mixer\.rope=1\.5 is not known: allowed are True, False"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(width, params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create(NAME, width, **params)
    assert "\n" not in str(caught.value)
