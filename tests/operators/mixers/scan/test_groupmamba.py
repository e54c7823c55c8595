"""`groupmamba` against its definition by loops: groups that do not read each other, and what scales them."""

import pytest
import torch
import torch.nn.functional as F

import operators
from operators import InputError
from operators.testing.cases import run
from operators.testing.checks import assert_close
from tests.operators.mixers.drawn import image, make
from tests.operators.mixers.scan.plain import assert_defined_by, on_grid, plain

WIDTH = 8


def walk(name, height, width):
    rows = [(i, j) for i in range(height) for j in range(width)]
    columns = [(i, j) for j in range(width) for i in range(height)]
    places = columns if name.startswith("col") else rows
    return places[::-1] if name.endswith("_r") else places


def in_own_shell(shell, x):
    """What a group scans (H, W, D / groups), and its gate."""
    u, z = (x @ shell.in_proj.weight.T).chunk(2, -1)
    u = F.conv2d(u.movedim(-1, 0)[None], shell.conv.weight, shell.conv.bias, padding=1, groups=u.shape[-1])[0]
    return F.silu(u.movedim(0, -1)), F.silu(z)


def by_loops(mixer):
    core = mixer.core

    def mixed(x):
        height, width = x.shape[:2]
        parts = []
        for index, (name, branch) in enumerate(zip(core.along, core.branches, strict=True)):
            v, z = x.chunk(len(core.along), -1)[index], None
            if core.shells is not None:
                v, z = in_own_shell(core.shells[index], v)
            places = walk(name, height, width)
            y = on_grid(dict(zip(places, plain(branch, [v[place] for place in places]), strict=True)), height, width)
            if z is not None:
                norm = core.shells[index].norm
                y = F.layer_norm(y, y.shape[-1:], norm.weight, norm.bias, 1e-6) * z
                y = y @ core.shells[index].out_proj.weight.T
            parts.append(y)
        y = torch.cat(parts, -1)
        if core.combine != "none":
            y = y * core.scale * x if core.combine == "mul" else y + core.scale * x
        if core.affinity is not None:
            y = y * torch.sigmoid(core.affinity.select(F.relu(core.affinity.reduce(x.mean((0, 1))))))
        if core.norm is not None:
            y = core.project(F.layer_norm(y, y.shape[-1:], core.norm.weight, core.norm.bias, 1e-6))
        return y

    return mixed


@pytest.mark.parametrize(
    ("grid", "params"),
    [
        ((3, 5), {"reduction": 2}),
        ((4, 3), {"own_shells": True, "combine": "mul", "reduction": 4}),
        ((2, 3), {"orders": ["col_r", "row"], "combine": "add", "rank": 2}),
        ((1, 1), {"combine": "mul", "reduction": 0}),
    ],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    mixer = make("groupmamba", WIDTH, state_dim=2, **params)
    # LayerNorm of two channels is ill-conditioned.
    assert_defined_by(mixer, by_loops(mixer), image(*grid, width=WIDTH, batch=1), 1e-10)


def test_groups_do_not_read_each_other():
    """But through the affinity."""
    for reduction, block_diagonal in ((0, True), (2, False)):
        mixer = make("groupmamba", WIDTH, reduction=reduction, state_dim=2)
        jacobian = torch.autograd.functional.jacobian(mixer, image(2, 2, width=WIDTH, batch=1))
        between = jacobian.abs().sum((0, 1, 2, 4, 5, 6))  # (to, from) channels
        other = torch.ones(4, 4).fill_diagonal_(0).repeat_interleave(2, 0).repeat_interleave(2, 1).bool()
        assert (between[other].max() == 0) == block_diagonal


def test_each_group_is_causal_along_its_order():
    mixer = make("groupmamba", WIDTH, reduction=0, state_dim=2)
    jacobian = torch.autograd.functional.jacobian(mixer, image(2, 3, width=WIDTH, batch=1))[0, ..., 0, :, :, :]
    for group, name in enumerate(mixer.core.along):
        own = jacobian[:, :, 2 * group : 2 * group + 2].abs().sum((2, 5))
        places = walk(name, 2, 3)
        for t, to in enumerate(places):
            for s, there in enumerate(places):
                assert (own[*to, *there] > 0) == (s <= t)


def test_the_affinity_is_shown_and_lies_between_0_and_1():
    mixer, x = make("groupmamba", WIDTH), image(3, 5, width=WIDTH)
    found = mixer.inspect(x)
    assert found["step"].shape == found["influence"].shape == (2, 4, 3, 5)
    affinity = found["affinity"]
    assert 0 < affinity.min() < affinity.max() < 1
    free = make("groupmamba", WIDTH, reduction=0)
    free.core.load_state_dict(mixer.core.state_dict(), strict=False)
    assert_close(run(mixer, x), affinity.detach()[:, None, None] * run(free, x), 1e-12, "y")
    assert "affinity" not in free.inspect(x)


def test_presets():
    core = operators.create("groupmamba", 32, shell="published").core
    assert (core.combine, core.branches[0].state_dim, core.branches[0].rank) == ("mul", 1, 1)
    assert core.affinity.reduce.out_features == 2
    assert len(core.shells) == 4
    core = operators.create("groupmamba", 32).core
    assert (core.combine, core.branches[0].state_dim, core.shells, core.project) == ("none", 16, None, None)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"orders": ["row"] * 3}, r"mixer\.orders has 3 orders, which must divide the width 8"),
        ({"orders": []}, r"mixer\.orders=\[\] must be a list of scan orders"),
        ({"combine": "sub"}, r"mixer\.combine='sub' is not known"),
        ({"reduction": -1}, r"mixer\.reduction=-1 must be an integer >= 0"),
        ({"own_shells": 2}, r"mixer\.own_shells=2 is not known"),
    ],
)
def test_refusals(params, message):
    with pytest.raises(InputError, match=message):
        operators.create("groupmamba", 8, **params)
