"""`mamba2d` against its definition, its symmetries, and what it refuses."""

import pytest
import torch

import operators
from operators import InputError
from operators.testing.cases import run
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.drawn import assert_same_function, image, make, set_to
from tests.operators.mixers.recurrence2d.plain import assert_like_loops, by_loops, lattice

GRIDS = [(5, 7), (4, 4), (1, 3), (3, 1), (1, 1)]
ALL = ["top_left", "top_right", "bottom_left", "bottom_right"]
TIGHT = 1e-12


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_output_and_gradients_are_those_of_loops_over_cells(grid):
    corners = ALL if grid == GRIDS[0] else None
    assert_like_loops(
        make("mamba2d", corners=corners, state_dim=3, rank=2), lattice, image(*grid), 0.25 if corners else 0.5
    )


def test_a_token_sees_the_quadrant_between_the_corner_and_itself():
    mixer, x = make("mamba2d", corners=["bottom_left"]), image(5, 6)
    changed = x.clone()
    changed[:, 2, 3] += 1
    moved = (run(mixer, changed) - run(mixer, x)).abs().amax((0, -1)) > 0
    expected = torch.zeros(5, 6, dtype=torch.bool)
    expected[:3, 3:] = True
    assert torch.equal(moved, expected)


def test_transposing_the_image_is_swapping_rows_and_columns_but_for_the_corner_cell():
    """The corner takes its input by the row's step and map alone."""
    mixer, swapped = (make("mamba2d", corners=["top_left"], state_dim=2, rank=1) for _ in range(2))
    (ours,), (other,) = mixer.core.branches, swapped.core.branches
    low_row, low_col, b_row, b_col, c = ours.project.weight.detach().split([1, 1, 2, 2, 2])
    set_to(torch.cat([low_col, low_row, b_col, b_row, c]), other.project.weight)
    for mine, theirs in ((ours.step_row, other.step_col), (ours.step_col, other.step_row)):
        theirs.load_state_dict(mine.state_dict())
    set_to(ours.A_row_log.detach(), other.A_col_log)
    set_to(ours.A_col_log.detach(), other.A_row_log)
    x = image(4, 6)
    assert_differs(run(swapped, x.transpose(1, 2)), run(mixer, x).transpose(1, 2), 1e-6, "transposed image")
    x[:, 0, 0] = 0
    assert_same_function(lambda x: swapped(zeroed(x).transpose(1, 2)).transpose(1, 2), lambda x: mixer(zeroed(x)), x)


def zeroed(x):
    """The image without its first token."""
    there = torch.ones_like(x)
    there[:, 0, 0] = 0
    return x * there


def test_tied_corners_commute_with_half_turns():
    mixer, x = make("mamba2d"), image(5, 4)
    first, second = mixer.core.branches
    second.load_state_dict(first.state_dict())
    assert_same_function(lambda x: mixer(x.flip(1, 2)), lambda x: mixer(x).flip(1, 2), x)


def test_both_steps_start_alike_and_within_their_bounds():
    torch.manual_seed(0)
    (branch,) = operators.create("mamba2d", 64, corners=["top_left"]).core.branches
    assert torch.equal(branch.step_row.bias, branch.step_col.bias)
    steps = torch.nn.functional.softplus(branch.step_row.bias)
    assert 1e-3 < steps.min() < 3e-3 < 3e-2 < steps.max() < 1e-1
    assert_close(branch.A_row_log[5].detach().exp(), torch.arange(1.0, 17), 1e-6, "rates")


def test_the_published_shell_has_one_corner_and_gelu_around_the_scan():
    torch.manual_seed(0)
    mixer = operators.create("mamba2d", 8, shell="published").double()
    (branch,) = mixer.core.branches
    shell, x = mixer.shell, image(3, 4, width=8)
    gelu = torch.nn.functional.gelu
    expected = shell.out_proj(gelu(by_loops(lattice, [branch], gelu(shell.in_proj(x)), 1)))
    assert_close(run(mixer, x), expected.detach(), TIGHT, "y")


def test_inspect_shows_steps_and_what_counts_at_the_centre():
    mixer, x = make("mamba2d", corners=["top_left", "bottom_right"], state_dim=2), image(5, 7)
    shown = mixer.inspect(x)
    first = shown["influence"][:, 0]
    assert first.shape == shown["step"][:, 1].shape == (2, 5, 7)
    assert not first[:, 3:].count_nonzero()
    assert not first[:, :, 4:].count_nonzero()
    assert (first[:, :3, :4] > 0).all()
    assert (shown["step"] > 0).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"corners": "top_left"}, r"mixer.corners='top_left' must be a list of top_left, top_right, .*"),
        ({"corners": []}, r"mixer.corners=\[\] must be a list"),
        ({"corners": ["top"]}, r"mixer.corners='top' is not known: allowed are top_left, .*did you mean 'top_\w+'\?"),
        ({"state_dim": 0}, r"mixer.state_dim=0 must be an integer >= 1"),
        ({"rank": 0}, r"mixer.rank=0 must be an integer >= 1"),
        ({"activation": "relu"}, r"mixer.activation='relu' is not known: allowed are gelu, none"),
        ({"backend": "gpu"}, r"backend of mamba2d='gpu' is not known"),
    ],
)
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        operators.create("mamba2d", 8, **params)
