"""Parts of a conditioned trunk: time embedding, modulation, block, head."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import operators
from models.isotropic.conditioning import ModulatedBlock, ModulatedHead, Modulation, TimeEmbedding
from models.isotropic.feed_forward import ConvFeedForward
from operators.testing.checks import assert_close, assert_differs
from operators.testing.counter import count_macs

DIM = 8


def waves(time: float) -> Tensor:
    """The 256 numbers that the embedding makes of one time, in double precision."""
    angles = [1000 * time * 10000 ** (-k / 128) for k in range(128)]
    return torch.tensor([math.cos(a) for a in angles] + [math.sin(a) for a in angles], dtype=torch.float64)


def perturb(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))


def modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The definition, with scale and shift (B, C)."""
    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return (1 + scale[:, None, None]) * normed + shift[:, None, None]


def linear_of_silu(modulation: Modulation, cond: Tensor) -> tuple[Tensor, ...]:
    weight, bias = modulation.linear.weight, modulation.linear.bias
    return (cond * torch.sigmoid(cond) @ weight.T + bias).chunk(modulation.count, dim=-1)


def test_time_embedding_is_the_formula() -> None:
    embedding = TimeEmbedding(DIM).double()
    times = [0.0, 0.25, 0.3141, 1.0]
    hidden = torch.stack([waves(t) for t in times]) @ embedding.up.weight.T + embedding.up.bias
    expected = hidden * torch.sigmoid(hidden) @ embedding.down.weight.T + embedding.down.bias
    assert_close(embedding(torch.tensor(times, dtype=torch.float64)), expected, 1e-12, "time embedding")
    assert embedding.macs() == 256 * DIM + DIM * DIM


def test_time_embedding_tells_a_thousand_times_apart() -> None:
    embedding = TimeEmbedding(64)
    vectors = embedding(torch.linspace(0, 1, 1001))
    steps = (vectors[1:] - vectors[:-1]).norm(dim=-1)
    assert steps.min() > 0.1 * steps.max() > 0


def test_time_embedding_keeps_its_digits_in_half_precision_weights() -> None:
    # 0.7 and 0.7005 are one number in bfloat16: angles must be made before the rounding.
    embedding = TimeEmbedding(16).bfloat16()
    first, second = embedding(torch.tensor([0.7, 0.7005]))
    assert first.dtype == torch.bfloat16
    assert_differs(first, second, 1e-2, "neighbouring times")


@pytest.mark.parametrize("mixer", ["conv", "attention"])
def test_block_is_two_modulated_gated_branches(mixer: str) -> None:
    block = ModulatedBlock(operators.create(mixer, DIM), DIM, hidden=12).double()
    perturb(block)
    x, cond = torch.randn(2, 5, 4, DIM, dtype=torch.float64), torch.randn(2, DIM, dtype=torch.float64)
    s1, b1, g1, s2, b2, g2 = linear_of_silu(block.modulation, cond)
    middle = x + g1[:, None, None] * block.mixer(modulated(x, s1, b1))
    assert block.ffn is not None
    expected = middle + g2[:, None, None] * block.ffn(modulated(middle, s2, b2))
    assert_close(block(x, cond), expected, 1e-12, "block")
    assert_differs(expected, middle, 1e-2, "the second branch")


def test_feed_forward_network_of_convolutions_is_one_of_single_maps() -> None:
    """The three convolutions and the residual are one 5 × 5 convolution, two linear maps one."""
    network = ConvFeedForward(DIM, 12).double()
    x = torch.randn(2, 5, 4, DIM, dtype=torch.float64)
    (first, second), (third, fourth) = network.up, network.down
    kernels = [F.pad(conv.weight, [2 - conv.weight.shape[-1] // 2] * 4) for conv in network.convs]
    kernel = torch.stack(kernels).sum(0)
    kernel[:, :, 2, 2] += 1
    z = F.gelu(F.linear(x, second.weight @ first.weight, second.weight @ first.bias + second.bias))
    bias = torch.stack([conv.bias for conv in network.convs]).sum(0)
    z = F.conv2d(z.movedim(-1, 1), kernel, bias, padding=2, groups=12).movedim(1, -1)
    expected = F.linear(z, fourth.weight @ third.weight, fourth.weight @ third.bias + fourth.bias)
    assert_close(network(x), expected, 1e-13, "network")
    assert network.macs(20) == count_macs(network, x[:1]) == 20 * (2 * (DIM * DIM + 12 * DIM) + 12 * 35)


def test_block_with_rms_norms_of_its_own() -> None:
    block = ModulatedBlock(operators.create("conv", DIM), DIM, hidden=12, norm="rms").double()
    perturb(block)
    x, cond = torch.randn(2, 5, 4, DIM, dtype=torch.float64), torch.randn(2, DIM, dtype=torch.float64)

    def scaled(x: Tensor, norm: nn.Module, scale: Tensor, shift: Tensor) -> Tensor:
        normed = norm.get_parameter("weight") * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return (1 + scale[:, None, None]) * normed + shift[:, None, None]

    assert block.ffn is not None
    assert block.ffn_norm is not None
    s1, b1, g1, s2, b2, g2 = linear_of_silu(block.modulation, cond)
    middle = x + g1[:, None, None] * block.mixer(scaled(x, block.norm, s1, b1))
    expected = middle + g2[:, None, None] * block.ffn(scaled(middle, block.ffn_norm, s2, b2))
    assert_close(block(x, cond), expected, 1e-12, "block")


def test_block_without_feed_forward_is_its_mixer_branch() -> None:
    block = ModulatedBlock(operators.create("conv", DIM), DIM, hidden=0).double()
    perturb(block)
    x, cond = torch.randn(2, 5, 4, DIM, dtype=torch.float64), torch.randn(2, DIM, dtype=torch.float64)
    s, b, g = linear_of_silu(block.modulation, cond)
    assert_close(block(x, cond), x + g[:, None, None] * block.mixer(modulated(x, s, b)), 1e-12, "mixer-only block")
    assert block.modulation.linear.weight.shape == (3 * DIM, DIM)
    assert block.macs(100) == 3 * DIM * DIM


def test_block_hands_its_mixer_the_conditioning_vector_as_it_is() -> None:
    mixer = operators.create("pde_ssm", DIM, grid=(4, 4), cond_dim=DIM, condition="cond")
    block = ModulatedBlock(mixer, DIM, hidden=12)
    seen: list[Tensor] = []
    mixer.core.register_forward_hook(lambda _, args, kwargs, __: seen.append(kwargs["cond"]), with_kwargs=True)
    cond = torch.randn(2, DIM)
    block(torch.randn(2, 4, 4, DIM), cond)
    assert torch.equal(seen[0], cond)


def test_block_counts_its_maps() -> None:
    block = ModulatedBlock(operators.create("conv", DIM), DIM, hidden=12)
    assert block.macs(100) == 6 * DIM * DIM + 100 * 2 * DIM * 12


def test_head_is_a_modulated_norm_and_a_linear_map() -> None:
    head = ModulatedHead(DIM, 6).double()
    perturb(head)
    x, cond = torch.randn(2, 5, 4, DIM, dtype=torch.float64), torch.randn(2, DIM, dtype=torch.float64)
    s, b = linear_of_silu(head.modulation, cond)
    assert_close(head(x, cond), F.linear(modulated(x, s, b), head.linear.weight, head.linear.bias), 1e-12, "head")
    assert head.macs(100) == 2 * DIM * DIM + 100 * 6 * DIM


def test_head_answers_in_full_precision_under_autocast() -> None:
    head = ModulatedHead(DIM, 6)
    perturb(head)
    x, cond = torch.randn(2, 5, 4, DIM), torch.randn(2, DIM)
    exact = head(x, cond)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(head(x, cond), exact, 0, "under autocast")
