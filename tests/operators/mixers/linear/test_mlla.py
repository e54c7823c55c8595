import pytest
import torch
import torch.nn.functional as F

import operators
from operators import InputError
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.linear.plain import GRIDS, assert_is, average, bare, by_image, elu, heads_of, image, turned

NAME = "mlla"


def angles_of(height, width, channels):
    """Of every pair of the D channels at every token, row by row, from the definition."""
    angles = torch.zeros(height * width, channels // 2, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            for t in range(channels // 4):
                frequency = 10000 ** (-t / (channels // 4))
                angles[i * width + j, t] = i * frequency
                angles[i * width + j, channels // 4 + t] = j * frequency
    return angles


def definition(rope):
    def one(mixer, tokens, grid):
        core, outputs = mixer.core, []
        q, k = (elu(part) for part in heads_of(core.qk, tokens, core.heads))
        angles = angles_of(*grid, tokens.shape[-1]).chunk(core.heads, dim=-1)
        for h, v in enumerate(tokens.chunk(core.heads, dim=-1)):
            rotated = (turned(q[h], angles[h]), turned(k[h], angles[h])) if rope else None
            outputs.append(average(q[h], k[h], v, 1e-6, rotated=rotated))
        return torch.cat(outputs, dim=-1)

    return by_image(one)


@pytest.mark.parametrize("rope", [True, False])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, rope):
    assert_is(bare(NAME, heads=2, rope=rope), image(*grid), definition(rope))


def test_the_convolution_of_the_values_is_added():
    mixer, x = bare(NAME, lepe=True), image(5, 7)
    core = mixer.core
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    local = core.local.bias.expand_as(x).clone()
    for i in range(3):
        for j in range(3):
            local += padded[:, i : i + 5, j : j + 7] * core.local.weight[:, 0, i, j]
    y, core.local = mixer(x), None
    assert_close(y - mixer(x), local, 1e-12, "what the convolution adds")


def test_the_published_shell_has_the_convolution_and_no_other_has():
    assert operators.create(NAME, 16, shell="published").core.local is not None
    assert operators.create(NAME, 16).core.local is None
    assert operators.create(NAME, 16, shell="published", lepe=False).core.local is None
    assert operators.create(NAME, 64, shell="published").cost(7, 7).parameters == 5 * 64**2 + 5 * 64 + 20 * 64


def test_the_first_half_of_the_heads_sees_rows_and_the_second_columns():
    """With equal features at all tokens, the map of a head depends on the offset along its own axis alone."""
    mixer = bare(NAME, heads=2)
    with torch.no_grad():
        mixer.core.qk.weight.zero_()
    weights = mixer.inspect(image(4, 5, batch=1))["map"][0].view(2, 4, 5, 4, 5)
    rows, columns = weights
    assert_close(rows, rows[:, :1, :, :1].expand_as(rows), 1e-13, "weights of the head of rows")
    assert_close(columns, columns[:1, :, :1].expand_as(columns), 1e-13, "weights of the head of columns")
    for head, far, near in (
        (rows, rows[2, 0, 1, 0], rows[3, 0, 2, 0]),
        (columns, columns[0, 3, 0, 1], columns[0, 4, 0, 2]),
    ):
        assert_close(far, near, 1e-13, "weights at the same distance")
        assert_differs(head[0, 0, 0, 0], head[0, 0, 3, 4], 1e-3, "weights at another distance")


@pytest.mark.parametrize("rope", [True, False])
def test_the_map_of_inspect_gives_the_output(rope):
    mixer, x = bare(NAME, heads=2, rope=rope), image(3, 5)
    weights = mixer.inspect(x)["map"]
    v = x.flatten(1, 2).unflatten(-1, (2, 8)).transpose(1, 2)
    assert_close(mixer(x), (weights @ v).transpose(1, 2).reshape(x.shape), 1e-13, "y")
    sums = weights.sum(-1)
    if rope:
        assert_differs(sums, torch.ones_like(sums), 1e-2, "sums of rotated rows")
        assert weights.min() < 0
    else:
        assert_close(sums, torch.ones_like(sums), 1e-5, "sums of rows")
        assert weights.min() >= 0


def test_what_its_options_make_of_its_symmetry():
    assert not operators.create(NAME, 16).permutation_equivariant
    assert operators.create(NAME, 16, rope=False).permutation_equivariant
    assert not operators.create(NAME, 16, rope=False, lepe=True).permutation_equivariant
    mixer, x = bare(NAME, rope=False), image(5, 7)
    assert_close(mixer(x.repeat(1, 2, 1, 1)), mixer(x).repeat(1, 2, 1, 1), 1e-13, "y of doubled tokens")


def test_many_tokens_in_float32():
    mixer, x = bare(NAME, 32, heads=2), image(64, 64, width=32, batch=1)
    assert_close(mixer.float()(x.float()).double(), mixer.double()(x), 1e-5, "y of 4,096 tokens")


@pytest.mark.parametrize(
    ("width", "params", "message"),
    [
        (16, {"heads": 3}, r"mixer\.heads=3 must divide the width 16; nearest: 2 and 4"),
        (6, {}, r"mixer\.rope=True needs a width divisible by 4, not 6"),
        (12, {"heads": 4}, r"mixer\.rope=True needs a head width divisible by 2, not 3"),
        (16, {"lepe": 3}, r"mixer\.lepe=3 is not known: allowed are True, False"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(width, params, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create(NAME, width, **params)
    assert "\n" not in str(caught.value)
