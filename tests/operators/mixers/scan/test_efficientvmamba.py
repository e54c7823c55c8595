"""`efficientvmamba` against its definition by loops: sub-grids that never meet."""

import pytest
import torch

import operators
from operators import InputError
from operators.testing.cases import run
from operators.testing.checks import assert_close
from tests.operators.mixers.drawn import image, make
from tests.operators.mixers.scan.plain import assert_defined_by, on_grid, plain


def sub_grid(a, b, p, height, width):
    """The places of a sub-grid as they are scanned."""
    rows, columns = range(a, height, p), range(b, width, p)
    if a % 2:
        return [(i, j) for j in columns for i in rows]
    return [(i, j) for i in rows for j in columns]


def by_loops(mixer):
    p = mixer.core.dilation

    def mixed(x):
        height, width = x.shape[:2]
        outputs = {}
        for index, branch in enumerate(mixer.core.branches):
            places = sub_grid(*divmod(index, p), p, height, width)
            scanned = plain(branch, [x[place] for place in places]) if places else []
            assert not outputs.keys() & set(places)
            outputs.update(zip(places, scanned, strict=True))
        return on_grid(outputs, height, width)

    return mixed


@pytest.mark.parametrize(
    ("grid", "params"),
    [((4, 6), {}), ((3, 5), {"rank": 2}), ((1, 3), {}), ((5, 4), {"dilation": 3}), ((3, 4), {"dilation": 1})],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    mixer = make("efficientvmamba", state_dim=2, **params)
    assert_defined_by(mixer, by_loops(mixer), image(*grid, batch=1))


@pytest.mark.parametrize("dilation", [2, 3])
def test_tokens_of_different_sub_grids_never_meet(dilation):
    mixer, x = make("efficientvmamba", dilation=dilation), image(6, 7)
    changed = x.clone()
    changed[:, 1::dilation, 1::dilation] += 1
    same = (run(mixer, changed) == run(mixer, x)).all(-1).all(0)
    expected = torch.ones(6, 7, dtype=torch.bool)
    expected[1::dilation, 1::dilation] = False
    assert torch.equal(same, expected)


def test_scans_every_token_once_whatever_the_dilation():
    costs = [operators.create("efficientvmamba", 16, dilation=p).cost(7, 10) for p in (1, 2, 3, 9)]
    assert len({(cost.macs, cost.projection_macs) for cost in costs}) == 1
    assert costs[1].state_elements == 4 * costs[0].state_elements
    whole = operators.create("ss2d", 16).cost(7, 10)
    assert whole.mixing_macs == 4 * costs[0].mixing_macs


def test_sub_grids_are_views():
    mixer, x = make("efficientvmamba", dilation=3), image(6, 7)
    assert {part.untyped_storage().data_ptr() for part in mixer.core._parts(x)} == {x.untyped_storage().data_ptr()}


@pytest.mark.parametrize("grid", [(5, 4), (1, 2), (4, 7)], ids=str)
def test_influence_is_that_of_the_centres_own_sub_grid(grid):
    mixer, x = make("efficientvmamba", state_dim=2), image(*grid)
    found = mixer.inspect(x)
    assert found["step"].shape == found["influence"].shape == (2, 1, *grid)
    assert (found["step"] > 0).all()
    a, b = (size // 2 % 2 for size in grid)
    own = found["influence"].clone()[:, 0]
    assert (own[:, grid[0] // 2, grid[1] // 2] > 0).all()
    own[:, a::2, b::2] = 0
    assert own.count_nonzero() == 0
    # As a scan of the sub-grid alone, read at the same token.
    part = x[:, a::2, b::2].contiguous()
    alone = make("ss2d", orders=[("row", "col")[a]], state_dim=2)
    alone.core.branches[0].load_state_dict(mixer.core.branches[2 * a + b].state_dict())
    assert_close(found["step"][:, 0, a::2, b::2].detach(), alone.inspect(part)["step"][:, 0].detach(), 1e-12, "steps")


@pytest.mark.parametrize("dilation", [0, 17, 1.5, "two"])
def test_refusals(dilation):
    with pytest.raises(InputError, match=r"mixer\.dilation=.* must be an integer >= 1 and <= 16"):
        operators.create("efficientvmamba", 8, dilation=dilation)
