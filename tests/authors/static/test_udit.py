"""Attention on downsampled tokens against U-DiT's code."""

from __future__ import annotations

import pytest
from torch import Tensor

from tests.authors.comparing import compare, fill
from tests.authors.source import Source
from tests.authors.stand_ins import built, images, of
from tests.authors.weights import joined, named, randomised, split
from tests.authors.weights import of as parameters

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("float64")]


def by_axis(rows: Tensor, heads: int) -> Tensor:
    """Outputs of a head as ours turns them: theirs are neighbours in pairs, of columns and of rows in turn."""
    pairs = rows.unflatten(0, (heads, -1, 2, 2))  # heads, frequency, (column, row), member
    return pairs.flip(2).permute(0, 3, 2, 1, *range(4, pairs.ndim)).flatten(0, 3)


@pytest.mark.parametrize("side", [12, 6])
def test_udit(side: int) -> None:
    """With angles in float64, on squares with an even side, which is all that their code takes."""
    dim, heads = 48, 2
    module = Source.of("udit").load("udit_models", edits={".float()": ""}, stubs={"utils.fastdit_kit": {}})
    theirs = randomised(
        module.DownSample_Attn(
            dim, side, 2, heads, bias=True, posemb_type="rope2d", attn_type="v2", downsampler="dwconv5",
            down_shortcut=True,
        ),
        0.2,
    )  # fmt: skip
    ours = built("udit", dim, shell="published", heads=heads)
    q, k, v = split(parameters(theirs.to_qkv), dim, dim, dim)
    filters = dict(theirs.downsampler.layer.named_parameters())
    with_input = filters["weight"].clone()
    with_input[:, :, 2, 2] += 1
    turned = [{name: by_axis(rows, heads) for name, rows in each.items()} for each in (q, k)]
    fill(
        ours,
        {
            **named(core__qk=joined(*turned), shell__in_proj=v, shell__out_proj=parameters(theirs.to_out)),
            **of("core.conv", theirs.downsampler.layer),
            "shell.conv.weight": with_input,
            "shell.conv.bias": filters["bias"],
            "core.scale": theirs.logit_scale.flatten(),
        },
    )
    compare("udit", ours, lambda x: theirs(x.movedim(-1, 1)).movedim(1, -1), images(side, side, dim=dim))
