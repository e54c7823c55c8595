"""`chimera` against its definition, its symmetries, and what it refuses."""

import pytest
import torch

import operators
from operators import InputError
from operators.testing.cases import run
from operators.testing.checks import assert_close
from tests.operators.mixers.drawn import assert_same_function, image, make, set_to
from tests.operators.mixers.recurrence2d.plain import assert_like_loops, roesser


@pytest.mark.parametrize("grid", [(5, 7), (4, 4), (1, 3), (3, 1), (1, 1)], ids=str)
def test_output_and_gradients_are_those_of_loops_over_cells(grid):
    assert_like_loops(make("chimera", state_dim=3, rank=2, coupling=0.3), roesser, image(*grid), 1)


def test_transposing_the_image_is_swapping_rows_and_columns():
    mixer, swapped = (make("chimera", corners=["top_left"], state_dim=2, rank=1) for _ in range(2))
    (ours,), (other,) = mixer.core.branches, swapped.core.branches
    parts = ours.project.weight.detach().split([1, 1, 2, 2, 2, 2])
    set_to(torch.cat([parts[k] for k in (1, 0, 3, 2, 5, 4)]), other.project.weight)
    for mine, theirs in ((ours.step_row, other.step_col), (ours.step_col, other.step_row)):
        theirs.load_state_dict(mine.state_dict())
    for k in range(1, 5):
        set_to(getattr(ours, f"A_{k}_log").detach(), getattr(other, f"A_{5 - k}_log"))
    assert_same_function(lambda x: swapped(x.transpose(1, 2)).transpose(1, 2), mixer, image(4, 6))


def test_tied_corners_commute_with_mirrors():
    mixer, x = make("chimera"), image(5, 4)
    first, *others = mixer.core.branches
    for branch in others:
        branch.load_state_dict(first.state_dict())
    for axis in (1, 2):
        assert_same_function(lambda x, axis=axis: mixer(x.flip(axis)), lambda x, axis=axis: mixer(x).flip(axis), x)


def test_states_of_a_large_image_stay_bounded():
    """Without the shares of `coupling` there are 10^17 ways from one corner of 30 × 30 tokens to the other."""
    torch.manual_seed(0)
    mixer = operators.create("chimera", 4, shell=operators.BARE, corners=["top_left"], state_dim=1, backend="diagonals")
    (branch,) = mixer.core.branches
    set_to(-20.0, *(getattr(branch, f"A_{k}_log") for k in range(1, 5)))  # states that do not fade
    y = run(mixer, torch.ones(1, 30, 30, 4))
    assert y.abs().max() < 1000 * y[0, 0, 0].abs().max()
    assert_close(branch.D.detach(), torch.ones(4), 0, "D")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"corners": ["middle"]}, r"mixer.corners='middle' is not known: allowed are top_left, top_right, "),
        ({"state_dim": 0}, r"mixer.state_dim=0 must be an integer >= 1"),
        ({"rank": 0}, r"mixer.rank=0 must be an integer >= 1"),
        ({"coupling": 1.5}, r"mixer.coupling=1.5 must be a number >= 0 and <= 1"),
    ],
)
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        operators.create("chimera", 8, **params)
