"""Mixers that are equations of physics against their authors' code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import operators
from tests.authors.comparing import compare, fill
from tests.authors.source import Source
from tests.authors.weights import named, of, pairs, randomised

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("float64")]
NOT_INSTALLED: dict[str, dict[str, Any]] = {"timm.models.layers": {}}


def test_gspn() -> None:
    """Their recurrence, weights and maps, one direction after the other; gates and outputs are turned as here."""
    kernels = "ops.gaterecurrent"
    module = Source.of("gspn").load(
        "classification.models.gspn",
        empty=("classification.models",),
        stubs=NOT_INSTALLED
        | {
            "fvcore.nn": {},
            f"{kernels}.gaterecurrent2dnoind_cuda": {},
            f"{kernels}.src_tr.gspn_triton_class": {"gaterecurrent_triton": None},
        },
        edits={
            "current_dir = os.path.dirname(os.path.abspath(__file__))": "",
            "project_root = os.path.abspath(os.path.join(current_dir, '..', '..'))": "",
            "sys.path.append(os.path.join(project_root, 'ops'))": "",
            "def normalize_w(Gl, Gm, Gr, method):": "def normalize_w(Gl, Gm, Gr):",
        },
    )
    width, rank = 4, 3
    theirs = randomised(module.SS2D(4, d_model=width, ssm_ratio=1.0, ssm_d_state=rank, channel_first=True))
    scan = module.GateRecurrent2dnoind(4, backend="pytorch")
    ours = operators.create("gspn", width, shell=operators.BARE, rank=rank)
    up = torch.cat([theirs.w_conv_up.weight, theirs.l_conv_up.weight, theirs.u_conv_up.weight, theirs.d_conv.weight])
    by_direction = up[..., 0, 0].unflatten(0, (6, 4, width)).transpose(0, 1)
    fill(
        ours,
        {
            "core.down.weight": of(theirs.x_conv_down)["weight"],
            "core.up.weight": by_direction.flatten(0, 2),
            "core.merge": theirs.m_conv.weight.flatten(),
        },
    )

    def turned(field: Tensor, direction: int) -> Tensor:
        """The field (B, D, H, W) with its scan from left to right."""
        field = field.mT if direction % 2 else field
        return field.flip(-1) if direction >= 2 else field

    def back(field: Tensor, direction: int) -> Tensor:
        field = field.flip(-1) if direction >= 2 else field
        return field.mT if direction % 2 else field

    def layer(x: Tensor) -> Tensor:
        field = x.movedim(-1, 1)
        code = theirs.x_conv_down(field)
        gates = theirs.w_conv_up(code).unflatten(1, (3, 4, width)).unbind(1)
        others = [conv(code).unflatten(1, (4, width)) for conv in (theirs.l_conv_up, theirs.u_conv_up, theirs.d_conv)]
        outputs = []
        for direction in range(4):
            g, (given, read, skip) = (
                [turned(each[:, direction], direction) for each in group] for group in (gates, others)
            )
            y = theirs.spn_block(turned(field, direction), given, read, *g, skip, scan)
            outputs.append(back(y, direction))
        return theirs.m_conv(torch.stack(outputs, 2).flatten(0, 1)).view(field.shape).movedim(1, -1)

    for grid in ((3, 5), (4, 4)):
        compare(f"gspn {grid}", ours, layer, torch.randn(2, *grid, width))


def test_vheat() -> None:
    """The whole layer, with the ε of our shell's norm."""
    module = Source.of("vheat").load(
        "models.vHeat",
        root="classification",
        empty=("models",),
        stubs=NOT_INSTALLED,
        edits={"dtype=torch.float)": "dtype=torch.double)"},
    )
    width = 6
    for grid in ((7, 7), (5, 8)):
        theirs = randomised(module.Heat2D(dim=width, hidden_dim=width))
        theirs.out_norm.eps = 1e-6
        embedding = torch.randn(*grid, width, requires_grad=True)
        ours = operators.create("vheat", width, grid=grid, shell="published")
        fill(
            ours,
            {"core.embedding": embedding}
            | named(
                shell__conv=of(theirs.dwconv),
                shell__in_proj=of(theirs.linear),
                shell__norm=of(theirs.out_norm),
                shell__out_proj=of(theirs.out_linear),
                core__to_k=of(theirs.to_k[0]),
            ),
        )

        def layer(x: Tensor, theirs: Any = theirs, embedding: Tensor = embedding) -> Tensor:
            return theirs(x.movedim(-1, 1), embedding).movedim(1, -1)

        same = pairs(ours, {"core.embedding": embedding, "shell.in_proj.weight": theirs.linear.weight})
        compare(f"vheat {grid}", ours, layer, torch.randn(2, *grid, width), same=same)
