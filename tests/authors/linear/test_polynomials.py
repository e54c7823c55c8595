"""Polynomial mixers against their authors' code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import operators
from tests.authors.comparing import compare, fill
from tests.authors.references import along_rows
from tests.authors.source import Source
from tests.authors.weights import randomised

pytestmark = pytest.mark.slow
DIM = 12
EXACT = {"F.hardsigmoid(": "(lambda x, inplace: F.relu6(x + 3) / 6)("}
"""Torch's own has 1/6 in float32 in its gradient, in float64 too."""


def images(*grid: int) -> Tensor:
    return torch.randn(2, *grid, DIM, dtype=torch.float64)


def compare_reading(name: str, ours: Any, theirs: Any) -> None:
    """Compare what tokens read from a context, all of it and what a mask leaves."""
    context, mask = torch.randn(2, 9, DIM, dtype=torch.float64), torch.arange(9) < torch.tensor([[9], [4]])
    for part, tokens in (("", None), (" with a mask", mask)):
        compare(
            f"{name} of a context{part}",
            lambda x, c, tokens=tokens: ours(x, context=c, mask=tokens),
            lambda x, c, tokens=tokens: theirs(x.flatten(1, 2), c, mask=tokens).view(x.shape),
            images(5, 7),
            context,
        )


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_homm(order: int) -> None:
    edits = {"@torch.compile": "", "1.e-7 + ": ""}
    module = Source.of("homm").load("layers", root="src/model/network", edits=edits)
    theirs = randomised(module.HoM(DIM, order, 2))
    shell = {"name": "published", "expand": 2 * order}
    ours: Any = operators.create("homm", DIM, shell=shell, order=order).double()
    maps = {"shell.in_proj": theirs.ho_proj, "core.gate": theirs.se_proj, "shell.out_proj": theirs.ag_proj}
    fill(ours, {f"{place}.{name}": each for place, m in maps.items() for name, each in m.named_parameters()})
    same = [(ours.core.gate.weight, theirs.se_proj.weight), (ours.shell.in_proj.weight, theirs.ho_proj.weight)]
    compare(f"homm {order}", ours, along_rows(theirs), images(5, 7), same=same)
    compare_reading(f"homm {order}", ours, theirs)


def filled(ours: Any, theirs: Any, place: Tensor | slice = slice(None)) -> list[tuple[Tensor, Tensor]]:
    """Our `PoM` with the weights of theirs, whose channels are ours at a place; parameters that are one in both."""
    inner = len(theirs.po_coeff)
    values, gates = theirs.qc_proj.weight.split([inner, len(theirs.se_bias)])
    own = place if len(gates) == inner else slice(None)
    fill(
        ours,
        {
            "shell.in_proj.weight": values[place],
            "core.gate.weight": gates[own],
            "core.gate.bias": theirs.se_bias[own],
            "core.coefficients": theirs.po_coeff[place],
            "shell.out_proj.weight": theirs.ag_proj.weight[:, place],
        },
    )
    return [(ours.core.coefficients, theirs.po_coeff), (ours.core.gate.bias, theirs.se_bias)]


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_pom(degree: int, heads: int) -> None:
    module = Source.of("pom").load("pom.pom", empty=("pom",), edits=EXACT)
    theirs = randomised(module.PoM(DIM, degree, expand=2, n_groups=1, n_sel_heads=heads))
    own: dict[str, Any] = {"degree": degree, "heads": None if heads == 1 else heads}
    ours: Any = operators.create("pom", DIM, shell="published", **own).double()
    same = filled(ours, theirs)
    compare(f"pom {degree} {heads}", ours, along_rows(theirs), images(5, 7), same=same)
    compare_reading(f"pom {degree} {heads}", ours, theirs)


@pytest.mark.parametrize("grid", [(5, 7), (9, 2)])
def test_pom__rope(grid: tuple[int, int]) -> None:
    module = Source.of("pom").load("pom.pom_rope", empty=("pom",), edits={**EXACT, "torch.float32": "torch.float64"})
    theirs = randomised(
        module.PoMRoPE(DIM, 3, expand=2, n_groups=1, n_sel_heads=1, max_h=9, max_w=9, rope_base=100.0, rope_2d=True)
    )
    ours: Any = operators.create("pom", DIM, shell="published", degree=3, rope=True).double()
    # Quarters of the channels: a row's pairs and a column's pairs there, all firsts and all seconds here.
    first, second, third, fourth = torch.arange(2 * DIM).chunk(4)
    filled(ours, theirs, torch.cat([first, third, second, fourth]))
    positions = torch.cartesian_prod(*(torch.arange(side) for side in grid))
    compare(f"pom rope {grid}", ours, along_rows(lambda x: theirs(x, positions_hw=positions)), images(*grid))
