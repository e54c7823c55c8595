"""`v2m` against its definition, its symmetries, and what it refuses."""

import pytest
import torch

import operators
from operators import InputError
from operators.testing.cases import noise, run, run_with_gradients
from operators.testing.checks import assert_close
from tests.operators.mixers.drawn import assert_same_function, image, make
from tests.operators.mixers.recurrence2d.plain import softplus

BACKEND = "chunked"
"""Compiles nothing."""


def plain_line(line_pass, tokens):
    """One pass over the tokens of a line in the order of the scan, by the definition."""
    read = tokens
    if line_pass.conv is not None:
        taps = line_pass.conv.weight.shape[-1]
        read = []
        for t in range(len(tokens)):
            total = line_pass.conv.bias
            for k in range(taps):  # the last tap meets the token itself
                if t - (taps - 1 - k) >= 0:
                    total = total + line_pass.conv.weight[:, 0, k] * tokens[t - (taps - 1 - k)]
            read.append(total * torch.sigmoid(total))
    h, outputs = 0, []
    for v in read:
        low, made = (line_pass.project.weight @ v).split([line_pass.rank, line_pass.state_dim])
        dt = softplus(line_pass.step.weight @ low + line_pass.step.bias)[:, None]
        one = torch.ones_like(made)
        b, c = (made, one) if line_pass.writes else (one, made)
        h = torch.exp(dt * -torch.exp(line_pass.A_log)) * h + dt * v[:, None] * b
        outputs.append(h @ c + line_pass.D * v)
    return torch.stack(outputs)


def plain_image(core, grid):
    """The output for one image (H, W, D)."""
    total = 0
    for name in ("row", "col", "row_r", "col_r"):
        placed = grid.transpose(0, 1) if name.startswith("col") else grid
        placed = placed.flip(1) if name.endswith("_r") else placed
        rows = torch.stack([plain_line(core.along, list(row)) for row in placed])
        rows = rows.flip(1) if name.endswith("_r") else rows
        y = torch.stack([plain_line(core.across, list(column)) for column in rows.transpose(0, 1)], dim=1)
        total = total + (y.transpose(0, 1) if name.startswith("col") else y)
    return total / 2


@pytest.mark.parametrize("grid", [(4, 5), (3, 3), (1, 3), (3, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("conv", [0, 2])
def test_output_and_gradients_are_those_of_loops_over_lines(grid, conv):
    mixer, x = make("v2m", state_dim=2, rank=2, conv=conv, backend=BACKEND), image(*grid)
    y, gradients = run_with_gradients(mixer, x)
    leaf = x.clone().requires_grad_()
    expected = torch.stack([plain_image(mixer.core, each) for each in leaf])
    wanted = [leaf, *mixer.parameters()]
    parts = torch.autograd.grad(
        expected, wanted, noise(*y.shape, dtype=y.dtype, seed=4), allow_unused=True, materialize_grads=True
    )
    assert_close(y, expected.detach(), 1e-12, "y")
    for (name, found), part in zip(gradients.items(), parts, strict=True):
        if part.count_nonzero():
            assert_close(found, part, 1e-11, f"gradient of {name}")
        else:
            assert not found.count_nonzero(), name


def test_a_token_sees_the_quadrant_behind_it():
    mixer, x = make("v2m", orders=["row_r"], backend=BACKEND), image(5, 6)
    changed = x.clone()
    changed[:, 2, 3] += 1
    moved = (run(mixer, changed) - run(mixer, x)).abs().amax((0, -1)) > 0
    expected = torch.zeros(5, 6, dtype=torch.bool)
    expected[2:, :4] = True
    assert torch.equal(moved, expected)


def test_orientations_share_their_maps_and_commute_with_transposition():
    mixer, x = make("v2m", conv=3, backend=BACKEND), image(5, 4)
    assert_same_function(lambda x: mixer(x.transpose(1, 2)), lambda x: mixer(x).transpose(1, 2), x)
    one = operators.create("v2m", 8, orders=["row"]).cost(3, 4).parameters
    assert operators.create("v2m", 8).cost(3, 4).parameters == one


def test_inspect_shows_what_counts_at_the_centre():
    mixer, x = make("v2m", orders=["row", "col_r"], backend=BACKEND), image(5, 6)
    with torch.inference_mode():
        first, second = mixer.inspect(x)["influence"].unbind(1)
    assert first.shape == (2, 5, 6)
    assert (first[:, :3, :4] > 0).all()
    assert not first[:, 3:].count_nonzero()
    assert (second[:, 2:, :4] > 0).all()
    assert not second[:, :2].count_nonzero()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"orders": []}, r"mixer.orders=\[\] must be a list of row, col, row_r, col_r"),
        ({"orders": ["snake"]}, r"mixer.orders='snake' is not known: allowed are row, col, row_r, col_r"),
        ({"conv": 65}, r"mixer.conv=65 must be an integer >= 0 and <= 64"),
        ({"rank": 0}, r"mixer.rank=0 must be an integer >= 1"),
    ],
)
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        operators.create("v2m", 8, **params)
