"""`two_d_mamba` against its definition, its symmetries, and what it refuses."""

import pytest
import torch

import operators
from operators import InputError
from operators.testing.cases import run
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.drawn import assert_same_function, image, make
from tests.operators.mixers.recurrence2d.plain import assert_like_loops, by_loops, two_step


@pytest.mark.parametrize("grid", [(4, 5), (3, 3), (1, 3), (3, 1), (1, 1)], ids=str)
def test_output_and_gradients_are_those_of_sums_over_ways(grid):
    assert_like_loops(make("two_d_mamba", state_dim=2, rank=2), two_step, image(*grid), 1)


def test_orders_along_rows_and_along_columns_differ():
    """What comes from (s, t) goes along row s and down column j, or down column t and along row i."""
    row, col = (make("two_d_mamba", orders=[order]) for order in ("row", "col"))
    x = image(4, 6)
    assert_same_function(lambda x: col(x.transpose(1, 2)).transpose(1, 2), row, x)
    assert_differs(run(col, x), run(row, x), 1e-3, "y")


def test_a_token_sees_the_quadrant_behind_it():
    mixer, x = make("two_d_mamba", orders=["col_r"]), image(5, 6)
    changed = x.clone()
    changed[:, 2, 3] += 1
    moved = (run(mixer, changed) - run(mixer, x)).abs().amax((0, -1)) > 0
    expected = torch.zeros(5, 6, dtype=torch.bool)
    expected[:3, :4] = True
    assert torch.equal(moved, expected)


def test_tied_orders_commute_with_half_turns_and_transposition():
    mixer, x = make("two_d_mamba"), image(5, 4)
    first, *others = mixer.core.branches
    for branch in others:
        branch.load_state_dict(first.state_dict())
    assert_same_function(lambda x: mixer(x.flip(1, 2)), lambda x: mixer(x).flip(1, 2), x)
    assert_same_function(lambda x: mixer(x.transpose(1, 2)), lambda x: mixer(x).transpose(1, 2), x)


def test_the_published_shell_has_one_state_behind_a_convolution():
    torch.manual_seed(0)
    mixer = operators.create("two_d_mamba", 8, shell="published").double()
    assert [branch.state_dim for branch in mixer.core.branches] == [1] * 4
    shell, x = mixer.shell, image(3, 4, width=8)
    u = torch.nn.functional.silu(shell.conv(shell.in_proj(x).movedim(-1, 1)).movedim(1, -1))
    expected = shell.out_proj(shell.norm(by_loops(two_step, mixer.core.branches, u, 1)))
    assert_close(run(mixer, x), expected.detach(), 1e-12, "y")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"orders": "row"}, r"mixer.orders='row' must be a list of row, col, row_r, col_r"),
        ({"orders": ["hilbert"]}, r"mixer.orders='hilbert' is not known: allowed are row, col, row_r, col_r"),
        ({"state_dim": 1.5}, r"mixer.state_dim=1.5 must be an integer >= 1"),
        ({"rank": -1}, r"mixer.rank=-1 must be an integer >= 1"),
    ],
)
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        operators.create("two_d_mamba", 8, **params)
