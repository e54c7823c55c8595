"""`spatial_mamba` against its definition by loops: states, their fusion, and what it reads of them."""

import pytest
import torch
import torch.nn.functional as F

import operators
from operators import InputError
from operators.scan import orders
from operators.testing.cases import run
from operators.testing.checks import assert_close, assert_differs
from tests.operators.mixers.drawn import image, make, set_to
from tests.operators.mixers.scan.plain import assert_defined_by, on_grid

NAME = "spatial_mamba"
EXACT = 1e-12


def made(**params):
    return make(NAME, backend="chunked", **params)


def by_loops(mixer):
    core = mixer.core
    (branch,) = core.branches
    rank, size = branch.rank, branch.state_dim

    def mixed(x):
        height, width, channels = x.shape
        order = orders.permutation(core.order + ("_r" if branch.backwards else ""), height, width).tolist()
        h, states, reads = torch.zeros(channels, size, dtype=x.dtype), {}, {}
        for token in order:
            place = divmod(token, width)
            maps = branch.project.weight @ x[place]
            B, reads[place] = maps[rank : rank + size], maps[rank + size :]
            dt = torch.log1p(torch.exp(branch.step.weight @ maps[:rank] + branch.step.bias))
            h = torch.exp(dt[:, None] * -torch.exp(branch.A_log)) * h + (dt * x[place])[:, None] * B
            states[place] = h
        outputs = {}
        for i, j in states:
            fused = 0
            for dilation, alpha, kernel in zip(
                core.fusion.dilations, core.fusion.alpha, core.fusion.kernels, strict=True
            ):
                for a in range(3):
                    for b in range(3):
                        row = min(max(i + (a - 1) * dilation, 0), height - 1)
                        column = min(max(j + (b - 1) * dilation, 0), width - 1)
                        fused = fused + alpha * kernel[:, 0, a, b, None] * states[row, column]
            outputs[i, j] = fused @ reads[i, j] + branch.D * x[i, j]
        return on_grid(outputs, height, width)

    return mixed


@pytest.mark.parametrize(
    ("grid", "params"),
    [
        ((3, 4), {}),
        ((3, 5), {"state_dim": 2, "order": "hilbert_r", "dilations": [2], "rank": 2}),
        ((1, 3), {}),
        ((1, 1), {}),
    ],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_the_definition(grid, params):
    mixer = made(**params)
    assert_defined_by(mixer, by_loops(mixer), image(*grid))


@pytest.mark.parametrize("dilations", [(1, 3, 5), (2, 4)])
def test_one_filter_does_what_all_convolutions_do(dilations):
    core = made(dilations=dilations).core
    maps, merged = image(4, 7).movedim(-1, 1), core.filters()
    reach = max(dilations)
    padded = F.pad(maps, (reach,) * 4, mode="replicate")
    assert_close(F.conv2d(padded, merged[:, None], groups=6).detach(), core.fusion(maps).detach(), EXACT, "fused maps")


def test_fused_states_are_not_causal_though_the_scan_is():
    mixer, x = made(), image(4, 5)
    later = x.clone()
    later[:, 2:] += 1
    assert_differs(run(mixer, later)[:, :2], run(mixer, x)[:, :2], 1e-3, "earlier outputs")
    set_to(0.0, mixer.core.fusion.kernels)
    set_to(1.0, mixer.core.fusion.kernels[:, :, :, 1, 1])
    assert torch.equal(run(mixer, later)[:, :2], run(mixer, x)[:, :2])


def test_the_start_sums_up_what_all_taps_see():
    core = operators.create(NAME, 16).core
    maps = torch.full((1, 16, 3, 4), 2.0)
    assert_close(core.fusion(maps).detach(), 27 * maps, 1e-6, "fused maps")
    assert core.branches[0].state_dim == 1


def test_what_pictures_show():
    shown = made().inspect(image(4, 5))
    assert {key: tuple(maps.shape) for key, maps in shown.items()} == {
        "step": (2, 1, 4, 5),
        "influence": (2, 1, 4, 5),
        "filters": (6, 11, 11),
    }


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"order": "rows"}, r"did you mean 'row'"),
        ({"dilations": 3}, r"mixer\.dilations=3 must be a list"),
        ({"dilations": []}, r"mixer\.dilations=\[\] must be a list of whole numbers, such as \[1, 3, 5\]"),
        ({"dilations": [1, 0]}, r"mixer\.dilations=0 must be an integer >= 1"),
        ({"state_dim": 0}, r"mixer\.state_dim=0 must be an integer >= 1"),
    ],
    ids=str,
)
def test_impossible_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        make(NAME, **params)
