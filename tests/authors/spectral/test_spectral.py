"""Spectral mixers against their authors' code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import operators
from tests.authors.comparing import compare, fill
from tests.authors.source import Source
from tests.authors.weights import pairs, randomised

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("float64")]
GRIDS = ((5, 7), (4, 6), (1, 3))
NOT_INSTALLED: dict[str, dict[str, Any]] = {
    "numpy.lib.arraypad": {},
    "timm.data": {},
    "timm.models.layers": {},
    "timm.models.registry": {},
}


def test_gfnet() -> None:
    module = Source.of("gfnet").load("gfnet", stubs=NOT_INSTALLED, edits={"x.to(torch.float32)": "x"})
    theirs = module.GlobalFilter(12, h=5, w=4).double()
    ours = operators.create("gfnet", 12, grid=(5, 7), shell=operators.BARE).double()
    fill(ours, {"core.filter": theirs.complex_weight.movedim(-1, 0)})
    x = torch.randn(2, 5, 7, 12, dtype=torch.float64)
    compare("gfnet", ours, lambda x: theirs(x.flatten(1, 2), (5, 7)).view(x.shape), x)


def test_afno() -> None:
    module = Source.of("afno").load("afno.afno2d", empty=("afno",), edits={"x = x.float()": ""})
    theirs = randomised(module.AFNO2D(12, num_blocks=3, sparsity_threshold=0.05, hidden_size_factor=2))
    ours = operators.create("afno", 12, shell=operators.BARE, blocks=3, hidden=2, sparsity=0.05)
    weights = {f"core.{name}": getattr(theirs, name) for name in ("w1", "b1", "w2", "b2")}
    fill(ours, weights)
    for grid in GRIDS:
        x = torch.randn(2, *grid, 12)
        compare(
            f"afno {grid}",
            ours,
            lambda x, grid=grid: theirs(x.flatten(1, 2), grid).view(x.shape),
            x,
            same=pairs(ours, weights),
        )


class DenseTensor:
    """In the place of tltorch's factorised tensors, of which dense ones alone are used."""

    @staticmethod
    def new(shape: tuple[int, ...], *, dtype: torch.dtype, **_: Any) -> nn.Parameter:
        return nn.Parameter(torch.empty(shape, dtype=dtype))


def test_fno() -> None:
    module = Source.of("fno").load(
        "neuralop.layers.spectral_convolution",
        empty=("neuralop", "neuralop.layers"),
        stubs={
            "opt_einsum": {},
            "tensorly": {"einsum": torch.einsum, "ndim": torch.Tensor.dim},
            "tensorly.plugins": {},
            "tltorch.factorized_tensors.core": {"FactorizedTensor": DenseTensor},
        },
        edits={"torch.cfloat": "torch.cdouble"},
    )
    with torch.no_grad():
        theirs = module.SpectralConv(6, 6, (5, 6))
    pointwise = torch.randn(6, 6)
    ours = operators.create("fno", 6, shell=operators.BARE, modes=(2, 3))
    matrices = torch.view_as_real(theirs.weight.detach()).permute(2, 3, 0, 4, 1)
    fill(
        ours,
        {"core.matrices": matrices, "core.pointwise.weight": pointwise, "core.pointwise.bias": theirs.bias.flatten()},
    )

    def layer(x: Tensor) -> Tensor:
        convolved: Tensor = theirs(x.movedim(-1, 1))
        return convolved.movedim(1, -1) + F.linear(x, pointwise)

    for grid in ((7, 9), (6, 8), (4, 5), (3, 4)):
        compare(f"fno {grid}", ours, layer, torch.randn(2, *grid, 6))


@pytest.mark.parametrize("how", ["blockdiag_butterfly_multiply", "blockdiag_butterfly_multiply_reference"])
def test_monarch(how: str) -> None:
    source = Source.of("monarch")
    multiply = getattr(source.load("src.mm.blockdiag_butterfly_multiply", root="bert", empty=("src",)), how)
    height, width, heads = 4, 7, 2
    ours = operators.create("monarch", 6, grid=(height, width), shell=operators.BARE, heads=heads)
    columns = torch.randn(heads, width, height, height, requires_grad=True)
    rows = torch.randn(heads, height, width, width, requires_grad=True)
    weights = {"core.columns": columns, "core.rows": rows}
    fill(ours, weights)

    def layer(x: Tensor) -> Tensor:
        """Theirs takes rows of tokens, the first matrices acting on neighbours: column by column."""
        tokens = x.unflatten(-1, (heads, -1)).permute(3, 0, 4, 2, 1).flatten(3)
        made = [
            multiply(part.flatten(0, 1), *matrices).view(part.shape)
            for part, *matrices in zip(tokens, columns, rows, strict=True)
        ]
        return torch.stack(made).unflatten(-1, (width, height)).permute(1, 4, 3, 0, 2).flatten(3)

    compare(f"monarch, {how}", ours, layer, torch.randn(2, height, width, 6), same=pairs(ours, weights))
