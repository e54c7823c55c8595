import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import operators
from operators import InputError
from operators.testing.checks import assert_close, assert_differs
from operators.testing.counter import count_macs

GRIDS = [(5, 7), (6, 6), (1, 4)]
WIDTH = 6


def make(name, *grid, shell="published", width=WIDTH, **params):
    return operators.create(name, width, grid=grid, shell=shell, **params).double()


def image(*grid, width=WIDTH, batch=2):
    return torch.randn(batch, *grid, width, dtype=torch.float64)


def windows(x, size):
    """For each token of one channel x (H, W), the pixels of its window that lie on the grid."""
    height, width, reach = *x.shape, size // 2
    for row in range(height):
        for column in range(width):
            top, left = max(row - reach, 0), max(column - reach, 0)
            yield row, column, x[top : row + reach + 1, left : column + reach + 1]


# ---------------------------------------------------------------- identity


def test_identity_is_the_identity_and_has_no_parameters():
    mixer, x = make("identity", 5, 7), image(5, 7)
    assert torch.equal(mixer(x), x)
    assert mixer.cost(5, 7) == operators.Cost()
    assert mixer.inspect(x) == {}


def test_identity_mixes_nothing_in_the_common_shell():
    mixer, x = make("identity", 5, 7, shell="common"), image(5, 7)
    changed = x.clone()
    changed[:, 2, 3] += 1
    moved = (mixer(changed) - mixer(x)).abs().amax((0, 3))
    assert moved[2, 3] > 1e-6
    assert moved.count_nonzero() == 1


# ---------------------------------------------------------------- pooling


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_pool_is_the_mean_of_the_window_on_the_grid_minus_the_centre(grid, size):
    x = image(*grid)
    expected = torch.empty_like(x)
    for batch in range(len(x)):
        for channel in range(WIDTH):
            field = x[batch, ..., channel]
            for row, column, window in windows(field, size):
                expected[batch, row, column, channel] = window.mean() - field[row, column]
    assert_close(make("pool", *grid, size=size)(x), expected, 1e-13, "y")


def test_pool_maps_constants_to_zero_at_the_border_too():
    x = torch.full((1, 5, 7, WIDTH), 3.25, dtype=torch.float64)
    assert make("pool", 5, 7)(x).abs().max() < 1e-15
    assert make("pool", 1, 1)(image(1, 1)).abs().max() < 1e-15


@pytest.mark.parametrize("size", [3, 5])
def test_pool_is_its_kernel_in_the_interior(size):
    mixer, x = make("pool", 9, 8, size=size), image(9, 8)
    kernel = mixer.inspect(x)["kernel"]
    assert abs(kernel.sum()) < 1e-15
    assert kernel[0, 0] == 1 / size**2
    expected = torch.nn.functional.conv2d(x.movedim(-1, 1), kernel.expand(WIDTH, 1, size, size), groups=WIDTH)
    inner = slice(size // 2, -(size // 2))
    assert_close(mixer(x)[:, inner, inner], expected.movedim(1, -1), 1e-13, "y")


def test_pool_is_linear():
    mixer, x, y = make("pool", 5, 7), image(5, 7), image(5, 7)
    assert_close(mixer(2 * x - 3 * y), 2 * mixer(x) - 3 * mixer(y), 1e-13, "superposition")


@pytest.mark.parametrize("size", [3, 5])
def test_pool_costs_one_addition_for_each_pixel_of_a_window(size):
    cost = make("pool", 5, 7, size=size).cost(5, 7)
    assert cost == operators.Cost(mixing_macs=size**2 * 35 * WIDTH // 2)


# ---------------------------------------------------------------- convolution


def random_conv(*grid, kernel):
    mixer = make("conv", *grid, kernel=kernel)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_()
    return mixer


@pytest.mark.parametrize("kernel", [3, 7])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_conv_is_a_sum_over_the_window_with_zeros_outside(grid, kernel):
    mixer, x = random_conv(*grid, kernel=kernel), image(*grid)
    filters, reach = mixer.inspect(x)["kernel"], kernel // 2
    expected = mixer.core.conv.bias.expand(x.shape).clone()
    for row in range(grid[0]):
        for column in range(grid[1]):
            for i in range(-reach, reach + 1):
                for j in range(-reach, reach + 1):
                    if 0 <= row + i < grid[0] and 0 <= column + j < grid[1]:
                        expected[:, row, column] += filters[:, i + reach, j + reach] * x[:, row + i, column + j]
    assert_close(mixer(x), expected, 1e-13, "y")


def test_conv_of_one_pixel_scales_each_channel():
    mixer, x = random_conv(5, 7, kernel=1), image(5, 7)
    assert_close(mixer(x), x * mixer.core.conv.weight.flatten() + mixer.core.conv.bias, 1e-14, "y")


def test_conv_with_a_delta_is_the_identity():
    mixer, x = make("conv", 5, 7), image(5, 7)
    with torch.no_grad():
        mixer.core.conv.weight.zero_()[:, :, 3, 3] = 1
    assert torch.equal(mixer(x), x)


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_conv_reaches_exactly_its_kernel_and_no_other_channel(kernel):
    mixer = random_conv(11, 13, kernel=kernel)
    x = image(11, 13, batch=1).requires_grad_()
    mixer(x)[0, 5, 6, 2].backward()
    reached = x.grad[0].nonzero()
    assert len(reached) == kernel**2
    assert set(reached[:, 2].tolist()) == {2}
    assert (reached[:, :2] - torch.tensor([5, 6])).abs().max() == kernel // 2


def test_conv_moves_with_its_input_away_from_the_border():
    mixer, x = random_conv(12, 14, kernel=5), image(12, 14)
    moved, expected = mixer(x.roll((1, 2), (1, 2))), mixer(x).roll((1, 2), (1, 2))
    assert_close(moved[:, 3:-2, 4:-2], expected[:, 3:-2, 4:-2], 1e-13, "interior")
    assert_differs(moved, expected, 1e-2, "with the border")


def test_conv_starts_as_convnext_does():
    core = operators.create("conv", 256).core
    assert 0.0195 < core.conv.weight.std() < 0.0205
    assert core.conv.weight.shape == (256, 1, 7, 7)
    assert not core.conv.bias.any()


@pytest.mark.parametrize("kernel", [1, 5])
def test_conv_cost_is_what_a_counter_sees(kernel):
    mixer = make("conv", 5, 7, kernel=kernel)
    with FlopCounterMode(display=False) as counter:
        mixer(image(5, 7, batch=1))
    cost = mixer.cost(5, 7)
    assert counter.get_total_flops() == 2 * cost.macs
    assert cost == operators.Cost(mixing_macs=kernel**2 * 35 * WIDTH, parameters=(kernel**2 + 1) * WIDTH)


# ---------------------------------------------------------------- random matrix


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_random_is_one_matrix_over_the_tokens(grid):
    mixer, x = make("random", *grid), image(*grid)
    matrix = mixer.inspect(x)["map"]
    tokens = x.flatten(1, 2)
    expected = torch.stack([sum(w * tokens[:, m] for m, w in enumerate(row)) for row in matrix], dim=1)
    assert_close(mixer(x), expected.reshape(x.shape), 1e-13, "y")


def test_random_matrix_is_a_softmax_of_uniform_numbers_by_rows():
    matrix = operators.create("random", WIDTH, grid=(16, 16)).core.matrix.double()
    torch.testing.assert_close(matrix.sum(1), torch.ones(256, dtype=torch.float64), atol=1e-5, rtol=0)
    logits = matrix.log()
    uniform = (logits - logits.amin(1, keepdim=True)).flatten()
    assert uniform.max() <= 1
    assert abs(uniform.mean() - 0.5) < 0.01  # 0.0012 is one standard deviation, a row's missing minimum 0.002
    assert abs(uniform.std() - math.sqrt(1 / 12)) < 0.01


def test_random_passes_constants():
    x = torch.full((1, 5, 7, WIDTH), 3.25, dtype=torch.float64)
    assert_close(make("random", 5, 7)(x), x, 1e-6, "y")  # the matrix was drawn in float32


def test_random_matrix_is_saved_and_never_trained():
    mixer = make("random", 5, 7, shell="common")
    assert not any("matrix" in name for name, _ in mixer.named_parameters())
    assert not mixer.core.matrix.requires_grad
    other = make("random", 5, 7, shell="common")
    assert_differs(other.core.matrix, mixer.core.matrix, 0.1, "matrix of a second draw")
    other.load_state_dict(mixer.state_dict())
    assert torch.equal(other.core.matrix, mixer.core.matrix)
    assert mixer.cost(5, 7).parameters == make("identity", 5, 7, shell="common").cost(5, 7).parameters


def test_random_backward_is_the_transposed_matrix():
    mixer, x, upstream = make("random", 5, 7), image(5, 7).requires_grad_(), image(5, 7)
    mixer(x).backward(upstream)
    expected = (mixer.core.matrix.T @ upstream.flatten(1, 2)).reshape(x.shape)
    assert_close(x.grad, expected, 1e-13, "dx")


def test_random_is_bound_to_its_grid():
    with pytest.raises(InputError, match=r"random depends on the grid: give grid=\(H, W\)"):
        operators.create("random", WIDTH)
    with pytest.raises(InputError, match=r"made for a \(5, 7\) grid and cannot serve \(7, 5\)"):
        make("random", 5, 7)(image(7, 5))


def test_random_cost_is_what_a_counter_sees():
    mixer = make("random", 5, 7)
    assert mixer.cost(5, 7) == operators.Cost(mixing_macs=35**2 * WIDTH, state_elements=35 * WIDTH)
    assert count_macs(mixer, image(5, 7, batch=1)) == 35**2 * WIDTH


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("pool", {"size": 4}, r"mixer\.size=4 must be odd, so that a window has a centre: 3 or 5"),
        ("pool", {"size": 1}, r"mixer\.size=1 must be an integer >= 3"),
        ("pool", {"size": 3.0}, r"mixer\.size=3\.0 must be an integer"),
        ("conv", {"kernel": 6}, r"mixer\.kernel=6 must be odd, so that a window has a centre: 5 or 7"),
        ("conv", {"kernel": -1}, r"mixer\.kernel=-1 must be an integer >= 1"),
        ("conv", {"kernels": 3}, r"mixer conv has no 'kernels': allowed are kernel; did you mean 'kernel'\?"),
        ("identity", {"size": 3}, r"mixer identity has no 'size': allowed are none"),
        ("random", {"seed": 3}, r"mixer random has no 'seed': allowed are none"),
    ],
    ids=str,
)
def test_bad_parameters_are_refused(name, params, message):
    with pytest.raises(InputError, match=message):
        operators.create(name, WIDTH, grid=(5, 7), **params)
