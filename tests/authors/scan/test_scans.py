"""The selective scans of Vim and VMamba against their authors' code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import operators
from tests.authors.comparing import compare, fill
from tests.authors.references import TRITON, along_rows
from tests.authors.source import Source
from tests.authors.stand_ins import causal_convolution
from tests.authors.weights import randomised

pytestmark = pytest.mark.slow
DIM = 20


def images(*grid: int) -> Tensor:
    return torch.randn(2, *grid, DIM, dtype=torch.float64)


def of(place: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{place}.{name}": each for name, each in module.named_parameters()}


@pytest.mark.parametrize("grid", [(5, 7), (8, 3)])
def test_mamba(grid: tuple[int, int]) -> None:
    source, root = Source.of("mamba"), "mamba-1p1p1"
    interface: Any = source.load(
        "mamba_ssm.ops.selective_scan_interface",
        root=root,
        empty=("mamba_ssm",),
        stubs={
            "selective_scan_cuda": {},
            "causal_conv1d": {"causal_conv1d_fn": causal_convolution},
            "causal_conv1d_cuda": {},
        },
        edits={".float()": ""},
    )
    interface.selective_scan_fn = interface.selective_scan_ref

    def inner(xz: Tensor, conv: Tensor, bias: Tensor, project: Tensor, step: Tensor, *rest: Any, **more: Any) -> Tensor:
        through = torch.eye(xz.shape[1] // 2, dtype=xz.dtype)
        y: Tensor = interface.mamba_inner_ref(xz, conv, bias, project, step, through, None, *rest, **more)
        return y.mT

    module = source.load(
        "mamba_ssm.modules.mamba_simple",
        root=root,
        stubs={
            "causal_conv1d": {},
            "mamba_ssm.ops.selective_scan_interface": {"mamba_inner_fn_no_out_proj": inner},
            "mamba_ssm.ops.triton.selective_state_update": {},
            "mamba_ssm.ops.triton.layer_norm": {},
        },
        edits={".float()": ""},
    )
    theirs = randomised(module.Mamba(DIM, d_state=6, bimamba_type="v2", if_divide_out=True))
    ours: Any = operators.create("mamba", DIM, shell="published", state_dim=6).double()
    named = {"shell.in_proj.weight": theirs.in_proj.weight, "shell.out_proj.weight": theirs.out_proj.weight}
    for place, end, A_log in (("core.branches.0", "", "A_log"), ("core.branches.1", "_b", "A_b_log")):
        named |= {f"{place}.A_log": getattr(theirs, A_log), f"{place}.D": getattr(theirs, f"D{end}")}
        for own, name in (("conv", "conv1d"), ("project", "x_proj"), ("step", "dt_proj")):
            named |= of(f"{place}.{own}", getattr(theirs, name + end))
    fill(ours, named)
    ahead, back = ours.core.branches
    same = [(ours.shell.in_proj.weight, theirs.in_proj.weight), (ahead.A_log, theirs.A_log), (back.D, theirs.D_b)]
    same += [(back.A_log, theirs.A_b_log), (ahead.step.bias, theirs.dt_proj.bias)]
    same += [(back.project.weight, theirs.x_proj_b.weight), (back.conv.weight, theirs.conv1d_b.weight)]
    compare(f"mamba {grid}", ours, along_rows(theirs), images(*grid), same=same)


def vmamba() -> Any:
    return Source.of("ss2d").load(
        "classification.models.vmamba",
        stubs={
            **TRITON,
            "timm.models.layers": {},
            "fvcore.nn": {},
            "classification.models.mamba2.ssd_minimal": {},
        },
        edits={
            "with torch.cuda.device(x.device):": "if True:",
            "with torch.cuda.device(y.device):": "if True:",
            "torch.float32": "torch.float64",
            ".to(torch.float)": "",
            ".float()": "",
            "assert out_y.dtype == torch.float": "",
        },
    )


def fill_ss2d(ours: Any, theirs: Any) -> list[tuple[Tensor, Tensor]]:
    """Copy the weights; parameters that are one in both."""
    modules = {"in_proj": theirs.in_proj, "conv": theirs.conv2d, "norm": theirs.out_norm, "out_proj": theirs.out_proj}
    named = {name: each for own, module in modules.items() for name, each in of(f"shell.{own}", module).items()}
    for index, (A_log, D) in enumerate(zip(theirs.A_logs.chunk(4), theirs.Ds.chunk(4), strict=True)):
        own = {"project.weight": theirs.x_proj_weight[index], "step.weight": theirs.dt_projs_weight[index]}
        own |= {"step.bias": theirs.dt_projs_bias[index], "A_log": A_log, "D": D}
        named |= {f"core.branches.{index}.{name}": each for name, each in own.items()}
    fill(ours, named)
    return [(ours.shell.in_proj.weight, theirs.in_proj.weight), (ours.shell.conv.weight, theirs.conv2d.weight)]


@pytest.mark.parametrize("grid", [(5, 7), (8, 3)])
def test_ss2d__v0(grid: tuple[int, int]) -> None:
    theirs = randomised(vmamba().SS2D(DIM, d_state=6, forward_type="v0"))
    ours: Any = operators.create("ss2d", DIM, shell="published", state_dim=6).double()
    same = fill_ss2d(ours, theirs)
    compare(f"ss2d v0 {grid}", ours, theirs, images(*grid), same=same)


@pytest.mark.parametrize("grid", [(5, 7), (8, 3)])
def test_ss2d__v05(grid: tuple[int, int]) -> None:
    final = {"forward_type": "v05_noz", "d_state": 1, "conv_bias": False, "channel_first": True}
    theirs = randomised(vmamba().SS2D(DIM, **final))
    ours: Any = operators.create("ss2d", DIM, shell="final").double()
    same = fill_ss2d(ours, theirs)
    compare(f"ss2d v05 {grid}", ours, lambda x: theirs(x.movedim(-1, 1)).movedim(1, -1), images(*grid), same=same)
