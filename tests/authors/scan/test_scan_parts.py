"""Selective scans of heads, pooled lines, fused states and half of the channels against their authors' code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import operators
from tests.authors.comparing import compare, fill
from tests.authors.source import Source
from tests.authors.stand_ins import (
    TIMM,
    branch,
    built,
    causal_convolution,
    direction,
    empty,
    images,
    of,
    selective_scan,
    vmamba_shell,
)
from tests.authors.weights import randomised

pytestmark = pytest.mark.slow
DIM = 16
PATTERNS = ("snake", "diagonal", "spiral", "raster")


def mhs_module(source: Source) -> Any:
    return source.load(
        "mhsm",
        root="models/vmunet",
        stubs={
            **TIMM,
            "mamba_ssm.ops.selective_scan_interface": {"selective_scan_fn": selective_scan},
            "scanutils": vars(source.load("scanutils")),
        },
        edits={
            ".float()": "",
            "assert ys.dtype == torch.float32": "pass",
            "assert out_ys.dtype == torch.float": "pass",
        },
    )


def mhs_weights(theirs: Any, heads: int) -> dict[str, Tensor]:
    weights = {
        **of("core.subspaces", theirs.x_ssproj),
        **of("core.norm", theirs.cat_norm),
        **of("core.project", theirs.y_proj),
    }
    for head, name in enumerate("CXSZ"[:heads]):
        engine = getattr(theirs, f"scanhead_{name}").mambaeng
        for route in range(4):
            weights |= direction(f"core.branches.{4 * head + route}", engine, route)
    return weights


@pytest.mark.parametrize(
    ("grid", "heads", "threshold", "gated"),
    [((4, 6), 4, 0.0, False), ((5, 7), 3, 0.5, False), ((4, 4), 4, 0.0, True), ((3, 5), 3, 0.2, True)],
)
def test_mhs(grid: tuple[int, int], heads: int, threshold: float, gated: bool) -> None:
    """The module, and the gated layer around it, which has no last projection."""
    source = Source.of("mhs")
    module: Any = mhs_module(source)
    routes = source.load("routegen").calc_posarrays(4 * grid[0], 4 * grid[1], 1)[0]["layer_0.cxsz_tpinds"]
    dim = 15 if heads == 3 else DIM
    options = {"head_num": heads, "gfu_t": threshold, "with_proj": True}
    theirs = randomised((module.VSSGate if gated else module.MHSM)(dim, para_dict=options, route_dict=routes))
    shell = operators.ShellSpec(conv=3, norm="layer") if gated else operators.BARE
    ours = built("mhs", dim, shell=shell, patterns=PATTERNS[:heads], threshold=threshold)
    weights = mhs_weights(theirs.mhs if gated else theirs, heads)
    if gated:
        theirs.out_proj = torch.nn.Linear(dim, dim, bias=False)
        weights |= vmamba_shell(theirs) | {"shell.out_proj.weight": torch.eye(dim)}
    fill(ours, weights)
    same = [(ours.core.subspaces.weight, (theirs.mhs if gated else theirs).x_ssproj.weight)]
    function = theirs if gated else lambda x: theirs(x.movedim(-1, 1).contiguous())
    compare("mhs", ours, function, images(*grid, dim=dim), same=same)


@pytest.mark.parametrize(
    ("grid", "order", "pool"), [((5, 7), "row", "mean"), ((6, 4), "col", "mean"), ((5, 7), "row", "max")]
)
def test_fastvim(grid: tuple[int, int], order: str, pool: str) -> None:
    """Columns are pooled as rows of the transposed image, as the authors' model does in every second block."""
    interface = "from mamba_ssm.ops.selective_scan_interface import selective_scan_fn"
    module: Any = Source.of("fastvim").load(
        "mamba_simple_faster",
        root="mamba-1p1p1/mamba_ssm/modules",
        stubs={
            "causal_conv1d": {"causal_conv1d_fn": causal_convolution},
            **empty(
                "mamba_ssm.ops.selective_scan_interface",
                "mamba_ssm.ops.triton.selective_state_update",
                "mamba_ssm.ops.triton.layernorm",
            ),
        },
        edits={".float()": "", interface: "selective_scan_fn = SCAN"},
    )
    module.SCAN = selective_scan
    transposed = order == "col"
    theirs = randomised(module.Mamba(DIM, token_size=grid[::-1] if transposed else grid, collapse_method=pool))
    ours = built("fastvim", DIM, shell="published", order=order, pool=pool)
    weights = {
        **of("shell.in_proj", theirs.in_proj),
        **of("shell.out_proj", theirs.out_proj),
        **of("shell.norm", theirs.layernorm),
    }
    for index, (end, rates) in enumerate((("", "A_log"), ("_b", "A_b_log"))):
        project, step, conv, D = (getattr(theirs, name + end) for name in ("x_proj", "dt_proj", "conv1d", "D"))
        weights |= branch(
            f"core.branches.{index}", project.weight, step.weight, step.bias, getattr(theirs, rates), D, conv
        )
    fill(ours, weights)
    ahead, back = ours.core.branches
    same = [
        (ahead.conv.weight, theirs.conv1d.weight),
        (ahead.project.weight, theirs.x_proj.weight),
        (back.A_log, theirs.A_b_log),
        (back.D, theirs.D_b),
    ]

    def function(x: Tensor) -> Tensor:
        x = x.transpose(1, 2) if transposed else x
        y = theirs(x.flatten(1, 2)).view(x.shape)
        return y.transpose(1, 2) if transposed else y

    compare("fastvim", ours, function, images(*grid), same=same)


def states(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, D: None, z: None, delta_bias: Tensor, **named: bool
) -> Tensor:
    """The one state of each channel, (B, D, 1, N)."""
    return selective_scan(u, delta, A, B, torch.ones_like(B), D, z, delta_bias, **named)[:, :, None]


@pytest.mark.parametrize("grid", [(5, 7), (8, 6), (1, 4)])
def test_spatial_mamba(grid: tuple[int, int]) -> None:
    """In training: for inference the authors' convolutions are one, whose kernel needs a GPU."""
    utilities = {"classification.models.utils": {"selective_scan_fn": states}}
    module: Any = Source.of("spatial_mamba").load(
        "classification.models.spatialmamba", stubs={**TIMM, **empty("fvcore.nn"), **utilities}
    )
    theirs = randomised(module.StructureAwareSSM(DIM, d_state=1)).train()
    ours = built("spatial_mamba", DIM, shell="published")
    fusion = theirs.state_fusion
    weights = {
        **vmamba_shell(theirs),
        **branch(
            "core.branches.0",
            theirs.x_proj_weight,
            theirs.dt_projs_weight,
            theirs.dt_projs_bias,
            theirs.A_logs,
            theirs.Ds,
        ),
        "core.fusion.alpha": fusion.alpha,
        "core.fusion.kernels": torch.stack([fusion.kernel_3, fusion.kernel_3_1, fusion.kernel_3_2]),
    }
    fill(ours, weights)
    own = ours.core.branches[0]
    same = [
        (ours.core.fusion.alpha, fusion.alpha),
        (own.project.weight, theirs.x_proj_weight),
        (own.A_log, theirs.A_logs),
        (own.step.bias, theirs.dt_projs_bias),
    ]
    compare("spatial_mamba", ours, theirs, images(*grid), same=same)


@pytest.mark.parametrize("grid", [(5, 7), (8, 6), (1, 3)])
def test_mambavision(grid: tuple[int, int]) -> None:
    """Their code adds the bias of the step twice."""
    module: Any = Source.of("mambavision").load(
        "mambavision.models.mamba_vision",
        stubs={
            **TIMM,
            **empty("timm.models._builder", "mambavision.models.registry"),
            "mamba_ssm.ops.selective_scan_interface": {"selective_scan_fn": selective_scan},
        },
        edits={".float()": ""},
    )
    theirs = randomised(module.MambaVisionMixer(DIM, d_state=8, d_conv=3, expand=1))
    ours = built("mambavision", DIM, shell="published")
    weights = {
        **of("shell.in_proj", theirs.in_proj),
        **of("shell.out_proj", theirs.out_proj),
        "core.conv.weight": torch.cat([theirs.conv1d_x.weight, theirs.conv1d_z.weight]),
        **branch(
            "core.branches.0",
            theirs.x_proj.weight,
            theirs.dt_proj.weight,
            2 * theirs.dt_proj.bias,
            theirs.A_log,
            theirs.D,
        ),
    }
    fill(ours, weights)
    own = ours.core.branches[0]
    same = [
        (own.project.weight, theirs.x_proj.weight),
        (own.step.weight, theirs.dt_proj.weight),
        (own.A_log, theirs.A_log),
        (own.D, theirs.D),
    ]
    compare("mambavision", ours, lambda x: theirs(x.flatten(1, 2)).view(x.shape), images(*grid), same=same)
