"""Recurrences over both axes of a grid against their authors' code."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import operators
from operators.wavefront import reference
from tests.authors.comparing import compare, fill
from tests.authors.source import Source
from tests.authors.stand_ins import TIMM, built, direction, empty, images, mamba_inner, of
from tests.authors.weights import randomised

pytestmark = pytest.mark.slow
REFUSAL = 'raise ValueError("Cannot choose scan direction if double scans are enabled!")'


class Lattice:
    """In the place of a function whose kernels need a GPU: the recurrence by its definition."""

    @staticmethod
    def apply(
        x: Tensor, down: Tensor, along: Tensor, A_T: Tensor, A_L: Tensor, B_T: Tensor, B_L: Tensor, C: Tensor, D: Tensor
    ) -> Tensor:
        return reference.lattice(x, along, down, A_L, A_T, B_L, B_T, C) + x * D


@cache
def mamba2d_module() -> Any:
    """Once, for it registers operators. Its second scan refuses to be made, and is not turned back: both are mended."""
    module: Any = Source.of("mamba2d").load(
        "models.mamba2d",
        empty=["models"],
        stubs=TIMM,
        edits={
            "torch._dynamo.config.cache_size_limit = 64": "",
            "@torch.compile\n": "\n",
            "cpp_extension.load(": "dict(",
            "os.path.abspath(__file__)": "''",
            "AT_log.float()": "AT_log",
            "AL_log.float()": "AL_log",
            REFUSAL: "self.scan_start = scan_start",
            "y = (y + y_b)/2": "y = (y + torch.flip(y_b, dims=[1, 2])) / 2",
        },
    )
    module.wavefront_scan_cuda.__globals__["wf_cuda_fn_pr"] = Lattice
    return module


def lattice_weights(place: str, theirs: Any, end: str = "") -> dict[str, Tensor]:
    """Theirs is down, along, B of both, C; ours along first."""
    project, down, along = (getattr(theirs, name + end) for name in ("x_proj", "dt_projT", "dt_projL"))
    rank, states = theirs.dt_rank, theirs.d_state
    low_T, low_L, B_T, B_L, C = project.weight.split([rank, rank, states, states, states])
    weights = {
        "project.weight": torch.cat([low_L, low_T, B_L, B_T, C]),
        "A_row_log": getattr(theirs, f"AL_log{end}"),
        "A_col_log": getattr(theirs, f"AT_log{end}"),
        "D": getattr(theirs, f"D{end}"),
        **of("step_row", along),
        **of("step_col", down),
    }
    return {f"{place}.{name}": each for name, each in weights.items()}


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("grid", [(5, 7), (6, 4), (11, 3)])
def test_mamba2d(grid: tuple[int, int], double: bool) -> None:
    dim = 24
    theirs = randomised(mamba2d_module().M2DBlock(dim, double_scans=double), scale=0.2)
    corners = ["top_left", "bottom_right"] if double else ["top_left"]
    ours = built("mamba2d", dim, shell="published", corners=corners)
    weights = {
        **of("shell.in_proj", theirs.in_proj),
        **of("shell.out_proj", theirs.out_proj),
        **lattice_weights("core.branches.0", theirs),
    }
    if double:
        weights |= lattice_weights("core.branches.1", theirs, "_b")
    fill(ours, weights)
    own = ours.core.branches[0]
    same = [
        (own.A_row_log, theirs.AL_log),
        (own.A_col_log, theirs.AT_log),
        (own.step_col.bias, theirs.dt_projT.bias),
        (own.D, theirs.D),
    ]
    compare("mamba2d", ours, theirs, images(*grid, dim=dim), same=same)


def two_step(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor, *_: bool, **named: Any
) -> Tensor:
    """In the place of a CUDA kernel: the two-step scan, of each direction by itself."""
    delta, ways = F.softplus(delta + bias[:, None]), B.shape[1]
    fields = [*(each.chunk(ways, dim=1) for each in (u, delta)), *(each.unbind(1) for each in (B, C))]
    scanned = []
    for rates, *sequences in zip(A.chunk(ways), *fields, strict=True):
        v, dt, b, c = (sequence.mT.unflatten(1, (named["HH"], named["WW"])) for sequence in sequences)
        scanned.append(reference.two_step(v, dt, rates, b, c).flatten(1, 2).mT)
    return torch.cat(scanned, dim=1) + D[:, None] * u


@pytest.mark.parametrize(("grid", "states"), [((5, 7), 1), ((4, 4), 1), ((6, 3), 3)])
def test_two_d_mamba(grid: tuple[int, int], states: int) -> None:
    module: Any = Source.of("two_d_mamba").load(
        "classification.models.vmamba",
        root="2DVMamba",
        stubs={
            **TIMM,
            **empty("fvcore.nn", "triton.language", "distutils.version"),
            "classification.models.csms6s": {"selective_scan_fn": two_step},
            "classification.models.mamba2.ssd_minimal": {"WITH_TRITON": False},
        },
        edits={
            ".to(torch.float)": "",
            "with torch.cuda.device(x.device):": "if True:",
            "with torch.cuda.device(y.device):": "if True:",
        },
    )
    dim = 32
    released = {"ssm_ratio": 1.0, "conv_bias": False, "forward_type": "v05_noz", "use_v2d": True}
    theirs = randomised(module.SS2D(d_model=dim, d_state=states, channel_first=False, **released), scale=0.2)
    ours = built("two_d_mamba", dim, shell="published", state_dim=states)
    weights = {
        **of("shell.in_proj", theirs.in_proj),
        **of("shell.out_proj", theirs.out_proj),
        **of("shell.conv", theirs.conv2d),
        **of("shell.norm", theirs.out_norm),
    }
    for index in range(4):
        weights |= direction(f"core.branches.{index}", theirs, index)
    fill(ours, weights)
    same = [(ours.shell.conv.weight, theirs.conv2d.weight), (ours.shell.in_proj.weight, theirs.in_proj.weight)]
    compare("two_d_mamba", ours, theirs, images(*grid, dim=dim), same=same)


def placed(scanned: Tensor) -> tuple[Tensor, ...]:
    """The four orientations, so that what the authors' code then does with each puts it where it belongs.

    That code takes the lines of the second scan for rows, and turns the sum of the last two back as one sequence.
    """
    along, down, against, up = scanned.chunk(4)
    return (
        along.transpose(1, 2),
        down.transpose(1, 2),
        against.flip(1).transpose(1, 2).flip(1, 2),
        up.flip(1).flip(1, 2).transpose(1, 2),
    )


@pytest.mark.parametrize("side", [5, 4, 1])
def test_v2m(side: int) -> None:
    """Without its gates, of which no shell has two, and with its outputs put in place. It knows squares only."""
    module: Any = Source.of("v2m").load(
        "mamba_simple",
        root="mamba-1p1p1/mamba_ssm/modules",
        stubs=empty(
            "causal_conv1d",
            "mamba_ssm.ops.selective_scan_interface",
            "mamba_ssm.ops.triton.selective_state_update",
            "mamba_ssm.ops.triton.layernorm",
        ),
        edits={
            "torch.device('cuda')": "'cpu'",
            ".float()": "",
            "torch.float32": "torch.float64",
            "out_hw.chunk(4, dim=0)": "placed(out_hw)",
        },
    )
    module.placed = placed
    module.mamba_inner_fn_no_out_proj = partial(mamba_inner, gated=False)
    dim = 24
    theirs = randomised(module.Mamba(dim, bimamba_type="2d", if_devide_out=True), scale=0.2)
    shell = operators.ShellSpec(expand=2, gate="none", norm="none")
    ours = built("v2m", dim, shell=shell, conv=4)
    weights = {"shell.in_proj.weight": theirs.in_proj.weight[: 2 * dim], **of("shell.out_proj", theirs.out_proj)}
    for name, end in (("along", ""), ("across", "_2")):
        weights |= {
            **of(f"core.{name}.project", getattr(theirs, f"x_proj{end}")),
            **of(f"core.{name}.step", getattr(theirs, f"dt_proj{end}")),
            **of(f"core.{name}.conv", getattr(theirs, f"conv1d{end}")),
            f"core.{name}.A_log": getattr(theirs, f"A{end}_log"),
            f"core.{name}.D": getattr(theirs, f"D{end}"),
        }
    fill(ours, weights)
    same = [
        (ours.core.across.A_log, theirs.A_2_log),
        (ours.core.along.project.weight, theirs.x_proj.weight),
        (ours.core.along.conv.weight, theirs.conv1d.weight),
    ]
    x = images(side, side, dim=dim)
    compare("v2m", ours, lambda x: theirs(x.flatten(1, 2)).view(x.shape), x, same=same)
