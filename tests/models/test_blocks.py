"""Parts of the trunk: patch embedding, drop path, feed-forward network, block."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import operators
from models.blocks import Block, DropPath, FeedForward, PatchEmbedding, norm_layer, unpatchify
from operators import InputError
from operators.testing.checks import assert_close


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patch_embedding_is_a_strided_convolution(patch: int) -> None:
    stem = PatchEmbedding(3, 8, patch)
    images = torch.randn(2, 3, 8, 12)
    weight = stem.weight.unflatten(1, (3, patch, patch))
    expected = F.conv2d(images, weight, stem.bias, stride=patch).permute(0, 2, 3, 1)
    assert_close(stem(images), expected, 1e-6, f"patch {patch}")


def test_patch_embedding_keeps_the_residual_stream_in_the_parameters_type() -> None:
    stem = PatchEmbedding(3, 8, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert stem(torch.randn(1, 3, 4, 4)).dtype == torch.float32
    assert stem.bfloat16()(torch.randn(1, 3, 4, 4).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 8, 8, 3)])
def test_patch_embedding_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"takes images \(B, 3, H, W\), not"):
        PatchEmbedding(3, 8, 2)(torch.zeros(shape))


def test_patch_embedding_refuses_sizes_it_does_not_divide() -> None:
    with pytest.raises(InputError, match=r"model.patch=4 .* 8×10 pixels: allowed are 1, 2; did you mean 2\?"):
        PatchEmbedding(3, 8, 4)(torch.zeros(1, 3, 8, 10))


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_unpatchify_inverts_the_patch_embeddings_cut(patch: int) -> None:
    stem = PatchEmbedding(3, 3 * patch**2, patch)
    with torch.no_grad():
        stem.weight.copy_(torch.eye(3 * patch**2))
        nn.init.zeros_(stem.bias)
        images = torch.randn(2, 3, 8, 12)
        assert torch.equal(unpatchify(stem(images), patch), images)


def test_drop_path_drops_whole_samples_at_its_rate_and_keeps_the_mean() -> None:
    rate, samples = 0.3, 20_000
    out = DropPath(rate).train()(torch.ones(samples, 2, 3))
    kept = out[:, 0, 0] != 0
    assert torch.equal(out, (kept.float() / (1 - rate))[:, None, None].expand_as(out))
    # Four standard errors of a Bernoulli mean.
    assert abs(kept.float().mean() - (1 - rate)) < 4 * (rate * (1 - rate) / samples) ** 0.5
    assert abs(out.mean() - 1) < 4 * (rate / (1 - rate) / samples) ** 0.5


def test_drop_path_is_the_identity_in_evaluation_and_at_rate_zero() -> None:
    x = torch.randn(5, 2)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0).train()(x) is x


def test_drop_path_gradient_is_zero_for_dropped_samples_alone() -> None:
    x = torch.ones(200, 3, requires_grad=True)
    out = DropPath(0.5).train()(x)
    out.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, out.detach())
    assert 0 < (x.grad == 0).all(1).sum() < 200


def test_feed_forward_is_linear_gelu_linear() -> None:
    ffn = FeedForward(6, 10)
    x = torch.randn(2, 3, 4, 6)
    hidden = x @ ffn.up.weight.T + ffn.up.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    assert_close(ffn(x), hidden @ ffn.down.weight.T + ffn.down.bias, 1e-6, "feed-forward")
    assert ffn.macs(7) == 7 * 2 * 6 * 10


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_norms_over_channels(norm: str) -> None:
    x = 3 * torch.randn(4, 5, 16, dtype=torch.float64) + 1
    centred = x - x.mean(-1, keepdim=True) if norm == "layer" else x
    expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    assert_close(norm_layer(norm, 16).double()(x), expected, 1e-12, norm)


def test_block_is_two_pre_norm_residual_branches() -> None:
    block = Block(operators.create("conv", 8), 8, hidden=12)
    x = torch.randn(2, 5, 4, 8)
    middle = x + block.mixer(F.layer_norm(x, (8,), eps=1e-6))
    assert isinstance(block.ffn, nn.Module)
    assert_close(block(x), middle + block.ffn(F.layer_norm(middle, (8,), eps=1e-6)), 1e-6, "block")


def test_block_without_feed_forward_is_its_mixer_branch() -> None:
    block = Block(operators.create("conv", 8), 8, hidden=0, norm="rms")
    x = torch.randn(2, 5, 4, 8)
    assert_close(block(x), x + block.mixer(F.rms_norm(x, (8,), eps=1e-6)), 1e-6, "mixer-only block")
    assert {name.split(".")[0] for name, _ in block.named_parameters()} == {"mixer", "mixer_norm"}
    assert block.macs(100) == 0


def test_block_drops_its_branches_apart() -> None:
    # With zeros in both output projections but a bias, each branch adds a constant, so four outcomes tell them apart.
    block = Block(operators.create("identity", 8, shell="published"), 8, hidden=4, drop_path=0.5).train()
    assert block.ffn is not None
    nn.init.zeros_(block.mixer_norm.weight)
    nn.init.ones_(block.mixer_norm.bias)
    nn.init.zeros_(block.ffn.down.weight)
    nn.init.constant_(block.ffn.down.bias, 10.0)
    outcomes = block(torch.zeros(400, 1, 1, 8))[:, 0, 0, 0]
    assert sorted(set(outcomes.tolist())) == [0.0, 2.0, 20.0, 22.0]


def test_unknown_norm_is_refused() -> None:
    with pytest.raises(InputError, match=r"model.norm='layers' .*: allowed are layer, rms; did you mean 'layer'"):
        norm_layer("layers", 8)
