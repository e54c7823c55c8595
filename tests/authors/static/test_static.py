"""Mixers with fixed weights, along the grid or between tokens, against their authors' code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.authors.comparing import compare, fill
from tests.authors.source import Source
from tests.authors.stand_ins import TIMM, built, empty, images, of
from tests.authors.weights import randomised

pytestmark = pytest.mark.slow
SIZES = pytest.mark.parametrize(("dim", "grid"), [(12, (5, 9)), (16, (8, 6)), (14, (1, 4))])


def swapped(weight: Tensor, first: int) -> Tensor:
    """The first rows behind the others."""
    return torch.cat([weight[first:], weight[:first]])


@SIZES
def test_sepconv(dim: int, grid: tuple[int, int]) -> None:
    module: Any = Source.of("sepconv").load("metaformer_baselines", stubs=TIMM)
    theirs = randomised(module.SepConv(dim))
    ours = built("sepconv", dim, shell="published")
    weights = {
        **of("shell.in_proj", theirs.pwconv1),
        **of("shell.out_proj", theirs.pwconv2),
        **of("core.conv", theirs.dwconv),
        "core.scale": theirs.act1.scale,
        "core.shift": theirs.act1.bias,
    }
    fill(ours, weights)
    same = [
        (ours.core.scale, theirs.act1.scale),
        (ours.core.shift, theirs.act1.bias),
        (ours.core.conv.weight, theirs.dwconv.weight),
        (ours.shell.in_proj.weight, theirs.pwconv1.weight),
    ]
    compare("sepconv", ours, theirs, images(*grid, dim=dim), same=same)


@SIZES
def test_gated_cnn(dim: int, grid: tuple[int, int]) -> None:
    """The block without its norm and its residual sum; its gate comes first."""
    module: Any = Source.of("gated_cnn").load("mambaout", root="models", stubs=TIMM)
    theirs = randomised(module.GatedCNNBlock(dim))
    theirs.norm = nn.Identity()
    ours = built("gated_cnn", dim, shell="published")
    hidden = theirs.fc2.in_features
    weights = {
        "shell.in_proj.weight": swapped(theirs.fc1.weight, hidden),
        "shell.in_proj.bias": swapped(theirs.fc1.bias, hidden),
        **of("shell.out_proj", theirs.fc2),
        **of("core.conv", theirs.conv),
    }
    fill(ours, weights)
    same = [(ours.core.conv.weight, theirs.conv.weight), (ours.shell.out_proj.weight, theirs.fc2.weight)]
    compare("gated_cnn", ours, lambda x: theirs(x) - x, images(*grid, dim=dim), same=same)


class Open(nn.Module):
    """What a conditioning vector would say: no norm's shift or scale, the mixer as it is, and no MLP."""

    def forward(self, cond: Tensor) -> Tensor:
        zero = cond.new_zeros(cond.shape)
        return torch.cat([zero, zero, zero + 1, zero, zero, zero], dim=1)


@SIZES
def test_dico(dim: int, grid: tuple[int, int]) -> None:
    """The block without its norm, modulation, MLP and residual sum."""
    module: Any = Source.of("dico").load("dico_models", stubs=TIMM)
    theirs = randomised(module.DiCoBlock(dim, 2))
    theirs.norm1, theirs.adaLN_modulation = nn.Identity(), Open()
    ours = built("dico", dim, shell="published")
    weights = {"core.conv.weight": theirs.conv2.weight, "core.conv.bias": theirs.conv2.bias}
    for place, each in (
        ("shell.in_proj", theirs.conv1),
        ("shell.out_proj", theirs.conv3),
        ("core.attention", theirs.ca[1]),
    ):
        weights |= {f"{place}.weight": each.weight.flatten(1), f"{place}.bias": each.bias}
    fill(ours, weights)
    same = [
        (ours.core.conv.weight, theirs.conv2.weight),
        (ours.core.attention.bias, theirs.ca[1].bias),
        (ours.shell.in_proj.bias, theirs.conv1.bias),
    ]

    def function(x: Tensor) -> Tensor:
        return (theirs(x.movedim(-1, 1), x.new_zeros(2, dim)) - x.movedim(-1, 1)).movedim(1, -1)

    compare("dico", ours, function, images(*grid, dim=dim), same=same)


class Layers:
    """What the authors' code takes of flax, which says a module by what it calls, in torch."""

    linears: ClassVar[Iterator[nn.Linear]]

    class Module:
        def __init_subclass__(cls) -> None:
            dataclass(cls)

    class Dense:
        def __init__(self, width: int) -> None:
            self.width = width

        def __call__(self, x: Tensor) -> Tensor:
            linear = next(Layers.linears)
            assert linear.weight.shape == (self.width, x.shape[-1])
            y: Tensor = linear(x)
            return y


@SIZES
def test_mlp_mixer(dim: int, grid: tuple[int, int]) -> None:
    """The authors' code is in JAX: it is run with torch's linear maps and exact GELU in the place of flax's."""
    flax = {"Module": Layers.Module, "Dense": Layers.Dense, "gelu": F.gelu, "compact": lambda function: function}
    module: Any = Source.of("mlp_mixer").load(
        "models_mixer", root="vit_jax", stubs={"flax.linen": flax, "jax.numpy": {"swapaxes": torch.swapaxes}}
    )
    ours = built("mlp_mixer", dim, shell="published", grid=grid)
    tokens, hidden = grid[0] * grid[1], dim // 2
    linears = [randomised(nn.Linear(tokens, hidden)), randomised(nn.Linear(hidden, tokens))]
    fill(ours, {**of("core.first", linears[0]), **of("core.last", linears[1])})
    theirs = module.MlpBlock(mlp_dim=hidden)

    def function(x: Tensor) -> Tensor:
        Layers.linears = iter(linears)
        return theirs(x.flatten(1, 2).mT).mT.reshape(x.shape)

    same = [(ours.core.first.weight, linears[0].weight), (ours.core.last.bias, linears[1].bias)]
    compare("mlp_mixer", ours, function, images(*grid, dim=dim), same=same)


@SIZES
def test_resmlp(dim: int, grid: tuple[int, int]) -> None:
    """The map between tokens; norms, scales and the MLP around it are of the block."""
    module: Any = Source.of("resmlp").load(
        "resmlp_models", stubs={**TIMM, "timm.models.vision_transformer": {"Mlp": lambda **_: nn.Identity()}}
    )
    block: Any = module.layers_scale_mlp_blocks(dim, num_patches=grid[0] * grid[1])
    theirs = randomised(block.attn)
    ours = built("resmlp", dim, shell="published", grid=grid)
    fill(ours, of("core.matrix", theirs))
    same = [(ours.core.matrix.weight, theirs.weight), (ours.core.matrix.bias, theirs.bias)]
    compare("resmlp", ours, lambda x: theirs(x.flatten(1, 2).mT).mT.reshape(x.shape), images(*grid, dim=dim), same=same)


@SIZES
def test_gmlp(dim: int, grid: tuple[int, int]) -> None:
    """Of timm: the authors published none. The gated layer of its block, whose gate comes first."""
    source = Source.of("gmlp")
    layers: Any = source.load("timm.layers.mlp", empty=["timm", "timm.layers"], stubs=empty("timm.layers.grn"))
    names = ("Mlp", "GluMlp", "GatedMlp", "to_2tuple")
    around = (f"timm.models._{name}" for name in ("builder", "features", "manipulate", "registry"))
    module: Any = source.load(
        "timm.models.mlp_mixer",
        stubs={"timm.layers": {name: getattr(layers, name) for name in names}, **empty("timm.data", *around)},
    )
    theirs = randomised(module.SpatialGatingBlock(dim, grid[0] * grid[1], mlp_ratio=6).mlp_channels)
    theirs.gate.norm.eps = 1e-5  # as it was; ours has it too
    ours = built("gmlp", dim, shell="published", grid=grid)
    weights = {
        "shell.in_proj.weight": swapped(theirs.fc1.weight, 3 * dim),
        "shell.in_proj.bias": swapped(theirs.fc1.bias, 3 * dim),
        **of("shell.out_proj", theirs.fc2),
        **of("core.matrix", theirs.gate.proj),
        **of("core.norm", theirs.gate.norm),
    }
    fill(ours, weights)
    same = [
        (ours.core.matrix.weight, theirs.gate.proj.weight),
        (ours.core.norm.weight, theirs.gate.norm.weight),
        (ours.shell.out_proj.weight, theirs.fc2.weight),
    ]
    compare("gmlp", ours, lambda x: theirs(x.flatten(1, 2)).reshape(x.shape), images(*grid, dim=dim), same=same)
