"""`msvmamba` against its definition by loops, and the leak of the released code."""

import pytest
import torch
import torch.nn.functional as F

import operators
from operators import InputError
from operators.testing.cases import run
from operators.testing.checks import assert_close
from tests.operators.mixers.drawn import image, make
from tests.operators.mixers.scan.plain import assert_defined_by, on_grid, plain


def convolved(conv, x, stride=1):
    """SiLU of a depthwise convolution at every token of x (H, W, D), of which each stride-th stays."""
    side = conv.weight.shape[-1]
    y = F.conv2d(x.movedim(-1, 0)[None], conv.weight, conv.bias, padding=side // 2, groups=x.shape[-1])[0]
    return F.silu(y.movedim(0, -1))[::stride, ::stride]


def interpolated(coarse, height, width):
    """Bilinear, between the centres of coarse tokens; beyond the outermost ones they stay."""

    def ends(place, size, coarse_size):
        source = max((place + 0.5) * coarse_size / size - 0.5, 0)
        low = int(source)
        return low, min(low + 1, coarse_size - 1), source - low

    rows = []
    for i in range(height):
        up, down, a = ends(i, height, coarse.shape[0])
        for j in range(width):
            left, right, b = ends(j, width, coarse.shape[1])
            above = (1 - b) * coarse[up, left] + b * coarse[up, right]
            below = (1 - b) * coarse[down, left] + b * coarse[down, right]
            rows.append((1 - a) * above + a * below)
    return torch.stack(rows).view(height, width, -1)


def walks(height, width):
    rows = [(i, j) for i in range(height) for j in range(width)]
    columns = [(i, j) for j in range(width) for i in range(height)]
    return [rows[::-1], columns, columns[::-1]]


def by_loops(mixer):
    core = mixer.core

    def normalised(y):
        return y if core.norm is None else F.layer_norm(y, y.shape[-1:], core.norm.weight, core.norm.bias, 1e-6)

    def mixed(x):
        height, width = x.shape[:2]
        fine = x if core.conv is None else convolved(core.conv, x)
        coarse = convolved(core.coarse_conv, x, core.stride)
        first, *others = core.branches
        y = torch.stack([normalised(y) for y in plain(first, list(fine.flatten(0, 1)))]).view(x.shape)
        ways = walks(*coarse.shape[:2])
        if core.shared:
            scanned = plain(others[0], [coarse[place] for way in ways for place in way])
        else:
            scanned = [
                y for branch, way in zip(others, ways, strict=True) for y in plain(branch, [coarse[p] for p in way])
            ]
        sums = {}
        for place, v in zip([place for way in ways for place in way], scanned, strict=True):
            sums[place] = sums.get(place, 0) + normalised(v)
        y = y + interpolated(on_grid(sums, *coarse.shape[:2]), height, width)
        if core.excitation is not None:
            narrow, wide = core.excitation
            y = y * torch.sigmoid(wide.weight @ torch.relu(narrow.weight @ y.mean((0, 1))))
        return y

    return mixed


@pytest.mark.parametrize(
    ("grid", "params"),
    [
        ((4, 5), {"coarse_conv": 3}),
        ((3, 4), {"shared": True, "conv": 3, "branch_norm": True, "squeeze": 2}),
        ((1, 3), {"shared": True}),
        ((5, 4), {"stride": 3, "branch_norm": True, "coarse_conv": 5}),
        ((1, 1), {}),
    ],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    mixer = make("msvmamba", state_dim=2, **params)
    assert_defined_by(mixer, by_loops(mixer), image(*grid, batch=1))


def reached(mixer, shape):
    """Which tokens of the three coarse orders, end to end, each of their outputs depends on, (to, from)."""
    core = mixer.core
    coarse = torch.randn(1, *shape, 6, dtype=torch.float64)
    sequence = core._end_to_end(coarse)
    if core.shared:
        scan = core.branches[1]
    else:  # the same sequence, one order after the other

        def scan(v):
            parts = v.chunk(3, 1)
            branches = list(core.branches)[1:]
            # A branch of a reversed order reads its grid's sequence from the end.
            ways = [
                branch(p.flip(1)).flip(1) if branch.backwards else branch(p)
                for branch, p in zip(branches, parts, strict=True)
            ]
            return torch.cat(ways, 1)

    return torch.autograd.functional.jacobian(scan, sequence)[0, :, :, 0].abs().sum((1, 3)) > 0


def test_states_leak_from_one_coarse_order_into_the_next_where_they_are_one_sequence():
    shape, tokens = (2, 3), 6
    for shared in (True, False):
        counts = reached(make("msvmamba", shared=shared, state_dim=2), shape).sum(1)
        firsts = counts[[0, tokens, 2 * tokens]].tolist()
        assert firsts == ([1, tokens + 1, 2 * tokens + 1] if shared else [1, 1, 1])


def test_scans_seven_quarters_of_the_tokens():
    """And the cross-scan four of them."""
    few, many = (operators.create(name, 16, shell=operators.BARE) for name in ("msvmamba", "ss2d"))
    taps = 8 * 6 // 4 * 49 * 16
    assert (few.cost(8, 6).mixing_macs - taps) * 16 == many.cost(8, 6).mixing_macs * 7
    assert few.cost(8, 6).state_elements == many.cost(8, 6).state_elements
    shared = operators.create("msvmamba", 16, shell=operators.BARE, shared=True)
    assert shared.cost(8, 6).state_elements * 2 == few.cost(8, 6).state_elements
    assert shared.cost(8, 6).macs == few.cost(8, 6).macs


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("grid", [(5, 4), (1, 1)], ids=str)
def test_influence_is_shown_of_both_fields(grid, shared):
    mixer, x = make("msvmamba", shared=shared, state_dim=2), image(*grid)
    found = mixer.inspect(x)
    small = tuple(-(-size // 2) for size in grid)
    assert found["step"].shape == found["influence"].shape == (2, 1, *grid)
    assert found["coarse_step"].shape == found["coarse_influence"].shape == (2, 3, *small)
    centre = small[0] // 2 * small[1] + small[1] // 2
    counts = found["coarse_influence"].flatten(2) > 0
    assert counts[:, 0, centre:].all()  # rows reversed: what lies behind in rows
    assert not counts[:, 0, :centre].any()
    if shared and grid != (1, 1):
        first, second = mixer.core._end_to_end(mixer.core._fields(x)[1]), found["coarse_step"][:, 1]
        steps, _ = mixer.core.branches[1].influence(first, 0)
        number = small[0] * small[1]
        columns = steps.mean(-1)[:, number : 2 * number].unflatten(1, small[::-1]).mT
        assert_close(second.detach(), columns.detach(), 1e-12, "steps along columns")


def test_presets():
    core = operators.create("msvmamba", 16, shell="published").core
    assert (core.shared, core.conv.weight.shape[-1], core.excitation[0].out_features) == (True, 3, 4)
    assert core.norm is not None
    assert [branch.state_dim for branch in core.branches] == [1, 1]
    core = operators.create("msvmamba", 16).core
    assert (core.shared, core.conv, core.excitation, core.norm) == (False, None, None, None)
    assert [branch.state_dim for branch in core.branches] == [16] * 4


def test_the_output_does_not_depend_on_its_own_channel_mean_without_excitation():
    quiet, loud = make("msvmamba", squeeze=0), make("msvmamba", squeeze=1)
    loud.core.load_state_dict(quiet.core.state_dict(), strict=False)
    with torch.no_grad():
        for linear in loud.core.excitation:
            linear.weight.zero_()
    x = image(4, 5)
    assert_close(2 * run(loud, x), run(quiet, x), 1e-12, "output at half of everything")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"stride": 0}, r"mixer\.stride=0 must be an integer >= 1"),
        ({"coarse_conv": 4}, r"mixer\.coarse_conv=4 is not known: allowed are 1, 3, 5"),
        ({"conv": 2}, r"mixer\.conv=2 is not known"),
        ({"shared": "yes"}, r"mixer\.shared='yes' is not known"),
        ({"squeeze": -1}, r"mixer\.squeeze=-1 must be an integer >= 0"),
    ],
)
def test_refusals(params, message):
    with pytest.raises(InputError, match=message):
        operators.create("msvmamba", 8, **params)
