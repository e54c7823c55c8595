"""Switches that trunks of one width need: Vision-RWKV's channel mix and norm of the tokens, ResMLP's affine maps in the
place of norms, and ViL's head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models
from models import MixerSpec
from models.initialisation import PowerRamp
from models.pyramid.channel_mix import ChannelMix
from models.pyramid.heads import EndsHead
from models.pyramid.parts import ChannelAffine
from operators.testing.checks import assert_close


def trunk(**switches: Any) -> models.Pyramid:
    shape: dict[str, Any] = {"image_size": (12, 20), "in_channels": 3, "num_classes": 5}
    one: dict[str, Any] = {"dim": 12, "widths": [1], "depths": [2], "patch": 4, "stem": "patch", "stem_norm": "none"}
    model = models.create("pyramid_nano", mixers=MixerSpec("conv"), **{**shape, **one, **switches})
    assert isinstance(model, models.Pyramid)
    return model


@torch.no_grad()
def scattered(module: nn.Module) -> None:
    """Move every parameter from where it starts."""
    for parameter in module.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.3)


def plain_mix(x: Tensor, layer: ChannelMix) -> Tensor:
    """What `ChannelMix` is by definition, token after token."""
    height, width, channels = x.shape[1:]
    quarters = [channels * index // 4 for index in range(5)]
    tokens = []
    for row in range(height):
        for column in range(width):
            near = []
            for quarter, (down, right) in enumerate(((0, -1), (0, 1), (-1, 0), (1, 0))):
                part = slice(quarters[quarter], quarters[quarter + 1])
                inside = 0 <= row + down < height and 0 <= column + right < width
                near.append(x[:, row + down, column + right, part] if inside else torch.zeros_like(x[:, 0, 0, part]))
            own, other = x[:, row, column], torch.cat(near, -1)
            to_key, to_gate = (mu.value * own + (1 - mu.value) * other for mu in (layer.mix_key, layer.mix_gate))
            inner = (to_key @ layer.up.weight.mT).clamp(min=0) ** 2
            tokens.append(inner @ layer.down.weight.mT / (1 + torch.exp(-to_gate @ layer.receptance.weight.mT)))
    return torch.stack(tokens, 1).view(x.shape)


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (4, 3)])
@pytest.mark.parametrize("dim", [8, 6])
def test_channel_mix_is_its_definition(grid: tuple[int, int], dim: int) -> None:
    """Outputs and all gradients, on odd and oblong grids, also where four does not divide the channels."""
    layer = ChannelMix(dim, 10).double()
    scattered(layer)
    x = torch.randn(2, *grid, dim, dtype=torch.float64, requires_grad=True)
    inputs = [x, *layer.parameters()]
    weight = torch.randn_like(x)
    results = [layer(x), plain_mix(x, layer)]
    gradients = [torch.autograd.grad(y, inputs, weight) for y in results]
    assert_close(results[0], results[1], 1e-13, "output")
    for (name, _), fast, plain in zip((("x", x), *layer.named_parameters()), *gradients, strict=True):
        assert_close(fast, plain, 1e-12, name)


def test_channel_mix_starts_as_the_middle_block_of_the_released_models() -> None:
    """(c / C)^(1 − l / L), halfway through the L blocks; in a trunk, on the meta device too."""
    expected = torch.tensor([channel / 12 for channel in range(12)]).sqrt()
    block = trunk(ffn="channel_mix").blocks[1]
    for layer in (ChannelMix(12, 48), block.get_submodule("ffn")):
        for name in ("mix_key.value", "mix_gate.value"):
            assert_close(layer.get_parameter(name), expected, 1e-6, name)
        assert layer.get_parameter("up.weight").std() > 0.1
    with torch.device("meta"):
        assert trunk(ffn="channel_mix")(torch.empty(2, 3, 12, 20)).shape == (2, 5)
    assert repr(PowerRamp(12, 0.5)) == "PowerRamp((12,), power=0.5)"


def test_an_affine_map_takes_the_place_of_every_norm() -> None:
    model = trunk(norm="affine", layer_scale=0.1)
    affine = [module for module in model.modules() if isinstance(module, ChannelAffine)]
    assert len(affine) == 5
    assert not [module for module in model.modules() if isinstance(module, nn.LayerNorm | nn.BatchNorm2d)]
    x = torch.randn(2, 3, 5, 12)
    assert torch.equal(affine[0](x), x)
    scattered(affine[0])
    assert_close(affine[0](x), x * affine[0].weight.value + affine[0].bias.value, 1e-6, "affine")


def test_the_norm_of_the_tokens_follows_their_positions() -> None:
    model = trunk(positions="learned", embedding_norm=True)
    scattered(model.positions)
    scattered(model.embedding_norm)
    images = torch.randn(2, 3, 12, 20)
    norm = model.embedding_norm
    assert isinstance(norm, nn.LayerNorm)
    raw = model.positions(model.stem(images))
    assert_close(model.tokens(images), F.layer_norm(raw, (12,), norm.weight, norm.bias, 1e-6), 1e-6, "tokens")
    assert isinstance(trunk(positions="learned").embedding_norm, nn.Identity)


def test_the_head_reads_the_first_and_the_last_token() -> None:
    head = trunk(head="ends").head
    assert isinstance(head, EndsHead)
    scattered(head)
    stage = torch.randn(2, 3, 5, 12)
    ends = [head.norm(stage[:, row, column]) for row, column in ((0, 0), (2, 4))]
    assert_close(head([stage]), head.linear(head.pair_norm(torch.cat(ends, -1))), 1e-6, "logits")
    middle = stage.clone()
    middle[:, 1:2], middle[:, 0, 1:], middle[:, 2, :4] = 0, 0, 0
    assert torch.equal(head([stage]), head([middle]))
    assert head.linear.weight.shape == (5, 24)
