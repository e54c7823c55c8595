"""Selective scans in the shells of their papers against their authors' code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from operators.scan import orders
from tests.authors.comparing import compare, fill
from tests.authors.source import Source
from tests.authors.stand_ins import (
    TIMM,
    SelectiveScan,
    branch,
    built,
    differentiated,
    direction,
    empty,
    images,
    mamba_inner,
    of,
    selective_scan,
    vmamba_shell,
)
from tests.authors.weights import randomised

pytestmark = pytest.mark.slow
DIM = 16
STUBS = {**TIMM, **empty("fvcore.nn")}


@pytest.mark.parametrize("grid", [(4, 6), (5, 7), (1, 3)])
def test_msvmamba(grid: tuple[int, int]) -> None:
    module: Any = Source.of("msvmamba").load(
        "classification.models.vmamba",
        empty=["classification.models"],
        stubs={**STUBS, **empty("selective_scan_cuda_core", "selective_scan_cuda")},
        edits={".to(torch.float)": ""},
    )
    scanned = module.x_selective_scan.__globals__
    scanned["SelectiveScan"] = SelectiveScan
    released = {"sscore_type": "multiscale_4scan_12", "add_se": True, "ms_split": [1, 3], "ms_stage": [0, 1, 2, 3]}
    theirs = randomised(module.SS2D(DIM, d_state=1, ssm_ratio=2.0, current_layer=0, upsample="interpolate", **released))
    ours = built("msvmamba", DIM, shell="published")
    weights = {
        **of("shell.in_proj", theirs.in_proj),
        **of("shell.out_proj", theirs.out_proj),
        **of("core.conv", theirs.conv2d),
        **of("core.coarse_conv", theirs.conv2d_b1),
        **of("core.norm", theirs.out_norm),
        **of("core.excitation.0", theirs.se.fc[0]),
        **of("core.excitation.1", theirs.se.fc[2]),
        **direction("core.branches.0", theirs, 1),
        **direction("core.branches.1", theirs, 0),
    }
    fill(ours, weights)
    same = [(ours.core.coarse_conv.weight, theirs.conv2d_b1.weight), (ours.core.norm.weight, theirs.out_norm.weight)]
    compare("msvmamba", ours, theirs, images(*grid), same=same)


@pytest.mark.parametrize("grid", [(4, 6), (6, 10)])
def test_efficientvmamba(grid: tuple[int, int]) -> None:
    """On even sides: on odd ones the authors' code pads with zeros, and our sub-grids end where the grid does."""
    module: Any = Source.of("efficientvmamba").load(
        "classification.models.vmamba_efficient",
        empty=["classification.models"],
        stubs={**STUBS, **empty("lib.models.operations", "selective_scan_cuda")},
        edits={".to(torch.float)": ""},
    )
    module.SelectiveScan = SelectiveScan
    theirs = randomised(module.SS2D(DIM, step_size=2))
    ours = built("efficientvmamba", DIM, shell="published")
    weights = vmamba_shell(theirs)
    for index, turned in enumerate((0, 2, 1, 3)):
        weights |= direction(f"core.branches.{index}", theirs, turned)
    fill(ours, weights)
    same = [(ours.shell.in_proj.weight, theirs.in_proj.weight), (ours.shell.conv.weight, theirs.conv2d.weight)]
    compare("efficientvmamba", ours, theirs, images(*grid), same=same)


@pytest.mark.parametrize("grid", [(5, 5), (4, 7), (6, 3)])
def test_groupmamba(grid: tuple[int, int]) -> None:
    """Their backward of two scans is right where H = W only: elsewhere gradients are those of the forward."""
    module: Any = Source.of("groupmamba").load(
        "classification.models.groupmamba",
        empty=["classification.models"],
        stubs=TIMM,
        edits={".to(torch.float)": "", ".to(torch.float32)": ""},
    )
    scanned = module.SS2D.forward_corev2.__globals__
    scanned["SelectiveScanCore"] = SelectiveScan
    if grid[0] != grid[1]:
        for name in (f"Cross{what}_{number}" for what in ("Scan", "Merge") for number in range(1, 5)):
            setattr(module, name, differentiated(getattr(module, name)))
    dim = 32
    theirs = randomised(module.GroupMambaLayer(dim, dim))
    ours = built("groupmamba", dim, shell="published")
    weights = {
        "core.scale": theirs.skip_scale,
        **of("core.norm", theirs.norm),
        **of("core.project", theirs.proj),
        **of("core.affinity.reduce", theirs.fc1),
        **of("core.affinity.select", theirs.fc2),
    }
    for index in range(4):
        group = getattr(theirs, f"mamba_g{index + 1}")
        weights |= {f"core.shells.{index}.{name.removeprefix('shell.')}": t for name, t in vmamba_shell(group).items()}
        weights |= direction(f"core.branches.{index}", group, 0)
    fill(ours, weights)
    same = [(ours.core.project.weight, theirs.proj.weight), (ours.core.affinity.reduce.weight, theirs.fc1.weight)]
    compare(
        "groupmamba",
        lambda x: ours(theirs.norm(x)),
        lambda x: theirs(x.flatten(1, 2), *grid).view(x.shape),
        images(*grid, dim=dim),
        same=same,
    )


@pytest.mark.parametrize("grid", [(4, 6), (5, 7), (3, 4)])
def test_plainmamba(grid: tuple[int, int]) -> None:
    """Their code adds the bias of the step twice."""
    module: Any = Source.of("plainmamba").load(
        "plain_mamba_layer",
        root="mmcls/plain_mamba_dev/models/plain_mamba",
        stubs={
            **empty("mmcv.cnn.bricks.transformer", "mamba_ssm.ops.triton.layernorm"),
            "mmcv.cnn.utils.weight_init": {"trunc_normal_": torch.nn.init.trunc_normal_},
            "mamba_ssm.ops.selective_scan_interface": {"selective_scan_fn": selective_scan},
        },
        edits={".float()": ""},
    )
    theirs = randomised(module.PlainMamba2D(DIM))
    ours = built("plainmamba", DIM, shell="published")
    weights = {
        **of("shell.in_proj", theirs.in_proj),
        **of("shell.out_proj", theirs.out_proj),
        **of("shell.conv", theirs.conv2d),
        **branch(
            "core.branches.0",
            theirs.x_proj.weight,
            theirs.dt_proj.weight,
            2 * theirs.dt_proj.bias,
            theirs.A_log,
            theirs.D,
        ),
        "core.directions": theirs.direction_Bs,
    }
    fill(ours, weights)
    own = ours.core.branches[0]
    same = [
        (ours.core.directions, theirs.direction_Bs),
        (own.A_log, theirs.A_log),
        (own.project.weight, theirs.x_proj.weight),
        (ours.shell.conv.weight, theirs.conv2d.weight),
    ]
    compare("plainmamba", ours, lambda x: theirs(x.flatten(1, 2), grid).view(x.shape), images(*grid), same=same)


FIRST = (["h", "h_flip", "w7", "w7_flip"], ["row", "row_r", "window", "window_r"], 7)
SECOND = (["v_flip", "w2_flip", "v", "w2"], ["col_r", "window_2_r", "col", "window"], 2)


@pytest.mark.parametrize(("grid", "ways"), [((14, 7), FIRST), ((7, 21), FIRST), ((6, 6), SECOND)])
def test_localmamba(grid: tuple[int, int], ways: tuple[list[str], list[str], int]) -> None:
    """Where windows divide the grid: elsewhere the authors' code pads with zeros. It puts columns back as rows."""
    directions, along, window = ways
    module: Any = Source.of("localmamba").load(
        "classification.lib.models.local_vmamba",
        empty=["classification.lib", "classification.lib.models", "classification.lib.models.mamba"],
        stubs={
            **STUBS,
            **empty("triton.language", "selective_scan_cuda_core", "mamba_ssm.ops.selective_scan_interface"),
        },
        edits={".to(torch.float)": ""},
    )
    module.SelectiveScan = SelectiveScan
    theirs = randomised(module.SS2D(DIM, directions=directions))
    ours = built("localmamba", DIM, shell="published", orders=along, window=window)
    weights = vmamba_shell(theirs)
    attention = theirs.multi_scan.attn
    named = {"norm": attention.norm, "reduce": attention.global_reduce, "select": attention.channel_select}
    for name, each in named.items():
        weights |= of(f"core.attention.{name}", each)
    for index in range(len(along)):
        weights |= direction(f"core.branches.{index}", theirs, index)
    fill(ours, weights)
    same = [
        (ours.core.attention.reduce.weight, attention.global_reduce.weight),
        (ours.shell.in_proj.weight, theirs.in_proj.weight),
    ]
    compare("localmamba", ours, theirs, images(*grid), same=same)


def zigma_paths(grid: tuple[int, int]) -> list[Tensor]:
    """The authors' eight paths on a square; elsewhere ours, for theirs know squares only."""
    ours = [orders.permutation(name, *grid) for name in orders.ZIGZAG8]
    if grid[0] != grid[1]:
        return ours
    paths = Source.of("zigma").load("utils_zigzag", root="utils", stubs=empty("matplotlib.pyplot"))
    theirs = [torch.as_tensor(np.asarray(path)) for path in paths.zigzag_path(N=grid[0])]
    return theirs[:8]


@pytest.mark.parametrize(("grid", "layer"), [((6, 6), 0), ((5, 5), 3), ((6, 6), 5), ((4, 4), 6), ((5, 7), 7)])
def test_zigma(grid: tuple[int, int], layer: int) -> None:
    interface = {"mamba_inner_fn": lambda *a, **k: F.linear(mamba_inner(*a[:5], *a[7:], **k).mT, *a[5:7])}
    module: Any = Source.of("zigma").load(
        "mamba_simple",
        root="dis_mamba/mamba_ssm/modules",
        stubs={
            "causal_conv1d": {"causal_conv1d_fn": None, "causal_conv1d_update": None},
            "dis_mamba.mamba_ssm.ops.selective_scan_interface": interface,
            **empty(
                "dis_mamba.mamba_ssm.ops.triton.selective_state_update", "dis_mamba.mamba_ssm.ops.triton.layernorm"
            ),
        },
        edits={".float()": ""},
    )
    paths = zigma_paths(grid)
    back = [path.argsort() for path in paths]
    theirs = randomised(
        module.Mamba(
            DIM, scan_type="zigzagN8", layer_idx=layer, zigzag_paths=paths, zigzag_paths_reverse=back, extras=0
        )
    )
    ours = built("zigma", DIM, shell="published", order=f"zigzag_{layer}")
    weights = {
        **of("shell.in_proj", theirs.in_proj),
        **of("shell.out_proj", theirs.out_proj),
        **branch(
            "core.branches.0",
            theirs.x_proj.weight,
            theirs.dt_proj.weight,
            theirs.dt_proj.bias,
            theirs.A_log,
            theirs.D,
            theirs.conv1d,
        ),
    }
    fill(ours, weights)
    own = ours.core.branches[0]
    same = [(own.conv.weight, theirs.conv1d.weight), (own.step.bias, theirs.dt_proj.bias), (own.D, theirs.D)]
    compare("zigma", ours, lambda x: theirs(x.flatten(1, 2)).view(x.shape), images(*grid), same=same)
