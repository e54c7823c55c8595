"""`plainmamba` against its definition by loops, with each token's own maps and with those of the released code."""

import pytest
import torch

import operators
from operators import InputError
from operators.testing.cases import run
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.drawn import image, make
from tests.operators.mixers.scan.plain import assert_defined_by

MOVES = {(0, 1): 1, (0, -1): 2, (-1, 0): 3, (1, 0): 4}
"""Right, left, up, down; 0 is the start."""


def snakes(height, width):
    """Places in order: along rows, and back; along columns, and back."""
    rows = [(i, j if i % 2 == 0 else width - 1 - j) for i in range(height) for j in range(width)]
    columns = [(i if j % 2 == 0 else height - 1 - i, j) for j in range(width) for i in range(height)]
    return [rows, rows[::-1], columns, columns[::-1]]


def by_loops(mixer):
    core = mixer.core
    (branch,) = core.branches
    rank, size = branch.rank, branch.state_dim

    def mixed(x):
        height, width = x.shape[:2]
        raster = list(x.flatten(0, 1))
        total = [torch.zeros_like(v) for v in raster]
        for places in snakes(height, width):
            h = torch.zeros(x.shape[-1], size, dtype=x.dtype)
            before = None
            for t, (i, j) in enumerate(places):
                made = branch.project.weight @ (x[i, j] if core.aligned else raster[t])
                low, B, C = made[:rank], made[rank : rank + size], made[rank + size :]
                B = B + core.directions[0 if before is None else MOVES[i - before[0], j - before[1]]]
                dt = torch.log1p(torch.exp(branch.step.weight @ low + branch.step.bias))
                h = torch.exp(dt[:, None] * -torch.exp(branch.A_log)) * h + (dt * x[i, j])[:, None] * B
                total[i * width + j] = total[i * width + j] + h @ C + branch.D * x[i, j]
                before = i, j
        return torch.stack(total).view(x.shape)

    return mixed


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("grid", [(3, 4), (1, 3), (1, 1)], ids=str)
def test_outputs_and_gradients_are_those_of_the_definition(grid, aligned):
    mixer = make("plainmamba", state_dim=2, aligned=aligned, rank=2)
    assert_defined_by(mixer, by_loops(mixer), image(*grid, batch=1))


def test_maps_of_other_tokens_make_no_difference_to_constant_images_only():
    own, others = make("plainmamba", aligned=True), make("plainmamba", aligned=False)
    constant = image(1, 1).expand(2, 4, 5, 6).contiguous()
    assert_close(run(others, constant), run(own, constant), 1e-12, "output of a constant image")
    assert_differs(run(others, image(4, 5)), run(own, image(4, 5)), 1e-2, "output of another image")


def test_directions_tell_one_way_from_the_other():
    """With tied scans half a turn of the image turns the output, unless directions differ."""
    for directions, commutes in (([1.0] * 5, True), ([1.0, 2.0, 3.0, 4.0, 5.0], False)):
        mixer = make("plainmamba")
        with torch.no_grad():
            mixer.core.directions.copy_(torch.tensor(directions, dtype=torch.float64)[:, None].expand(5, 16))
        x = image(3, 5)
        turned = run(mixer, x.rot90(2, (1, 2)).contiguous()).rot90(2, (1, 2))
        check = assert_close if commutes else assert_differs
        check(turned, run(mixer, x), 1e-12 if commutes else 1e-3, "output turned back")


def test_maps_are_made_once():
    one, four = operators.create("zigma", 16).cost(5, 7), operators.create("plainmamba", 16).cost(5, 7)
    assert one.projection_macs == four.projection_macs
    assert 4 * one.mixing_macs == four.mixing_macs
    assert 4 * one.state_elements == four.state_elements


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("grid", [(4, 5), (1, 1)], ids=str)
def test_influence_is_that_of_what_each_snake_has_read(grid, aligned):
    mixer = make("plainmamba", aligned=aligned, state_dim=2)
    found = mixer.inspect(image(*grid))
    assert found["step"].shape == (2, 1, *grid)
    centre = grid[0] // 2, grid[1] // 2
    for index, places in enumerate(snakes(*grid)):
        read = places[: places.index(centre) + 1]
        for place in places:
            assert (found["influence"][:, index, *place] > 0).all() == (place in read)


def test_presets():
    assert operators.create("plainmamba", 16).core.aligned
    assert not operators.create("plainmamba", 16, shell="published").core.aligned
    assert operators.create("plainmamba", 16, shell="published", aligned=True).core.aligned
    with pytest.raises(InputError, match=r"mixer\.aligned='no' is not known"):
        operators.create("plainmamba", 16, aligned="no")
