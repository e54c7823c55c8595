"""Layers in the `published` shell against their authors': as many parameters, at the shapes the authors give them.

The numbers are those of the authors' modules, built at width 128 with heads 64 wide (gated_deltanet: 3 of 32 keys and
64 values; neighbourhood, window and halo: 4 of 32); repository and commit are on each card.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import operators
from operators.testing.checks import assert_close

WIDTH = 128
GRID = (5, 9)

COUNTS: dict[str, tuple[dict[str, Any], int]] = {
    "ssd": ({"orders": ["row"]}, 117_388),  # Mamba2Simple(128, headdim=64)
    # LogLinearMamba2(num_heads=4, head_dim=64, state_size=64, use_bias=False, use_conv_bias=True)
    "log_linear": ({"orders": ["row"]}, 125_128),
    "vssd": ({}, 119_564),  # Mamba2(128, headdim=64, linear_attn_duality=True)
    "gla": ({"orders": ["row"]}, 68_736),  # GatedLinearAttention(hidden_size=128, num_heads=2)
    "deltanet": ({"orders": ["row"]}, 67_392),  # DeltaNet(hidden_size=128, num_heads=2)
    "gated_deltanet": ({"orders": ["row"]}, 100_678),  # GatedDeltaNet(hidden_size=128, head_dim=32, num_heads=3)
    # GatedDeltaProduct(hidden_size=128, head_dim=64, num_heads=2, expand_v=1, use_output_gate=False)
    "deltaproduct": ({"orders": ["row"]}, 101_700),
    # KimiDeltaAttention(hidden_size=128, head_dim=64, num_heads=2), without the bias of its gate that the paper has not
    "kda": ({"orders": ["row"]}, 100_418 - WIDTH),
    "lightnet": ({}, 98_432),  # LightNetAttention(hidden_size=128, num_heads=2, expand_ratio=64)
    "efficientvmamba": ({}, 168_960),  # SS2D(d_model=128, step_size=2)
    "vision_rwkv": ({}, 66_176),  # VRWKV_SpatialMix(n_embd=128, n_layer=12, layer_id=5)
    "vil": ({}, 112_264),  # ViLLayer(128, SequenceTraversal.ROWWISE_FROM_TOP_LEFT, conv_kernel_size=3)
    "dcn": ({}, 62_424),  # DCNv3_pytorch(128, group=8)
    "neighbourhood": ({"heads": 4}, 66_724),  # NeighborhoodAttention2D(128, num_heads=4, kernel_size=7)
    # DownSample_Attn(128, 12, 2, 4, bias=True, attn_type="v2", downsampler="dwconv5"), and a second convolution
    "udit": ({"heads": 4}, 69_380 + 26 * WIDTH),
    "window": ({"heads": 4}, 66_724),  # WindowAttention(128, (7, 7), num_heads=4)
    # HaloAttn(128, num_heads=4, block_size=7, pos_embed_type="query_related"), less vectors that no pair of tokens
    # uses; values have a bias here
    "halo": ({"heads": 4}, 67_264 - 2 * 6 * 32 + WIDTH),
    "spatial_reduction": (
        {"heads": 2, "reduction": 2},
        131_968,
    ),  # Attention(128, num_heads=2, qkv_bias=True, sr_ratio=2)
    "msvmamba": ({}, 141_312),  # SS2D(128, d_state=1, ssm_ratio=2, sscore_type="multiscale_4scan_12", add_se=True)
    "groupmamba": ({}, 33_929),  # GroupMambaLayer(128, 128), whose two LayerNorms are one
    "plainmamba": ({}, 128_080),  # PlainMamba2D(128)
    "localmamba": ({}, 186_144),  # SS2D(128, directions=["h", "h_flip", "w7", "w7_flip"]) of LocalVMamba
    "zigma": ({}, 116_480),  # Mamba(128, scan_type="zigzagN8")
    "fastvim": ({}, 135_168),  # Mamba(128, token_size=(5, 9))
    "spatial_mamba": ({}, 113_667),  # StructureAwareSSM(128, d_state=1)
    "mambavision": ({}, 35_840),  # MambaVisionMixer(128, d_state=8, d_conv=3, expand=1)
    "mamba2d": ({}, 47_744),  # M2DBlock(128)
    # SS2D(128, d_state=1, ssm_ratio=1, conv_bias=False, forward_type="v05_noz", use_v2d=True)
    "two_d_mamba": ({}, 44_928),
    # Heat2D(dim=128, hidden_dim=128), and the embedding of frequencies, which the authors' blocks share
    # S4ND(128, d_state=64, mode="diag", n_ssm=1), less B, which is part of C here
    "s4nd": ({}, 33_408 - 2 * 2 * 32),
    # TwoDimensionalSSM(128) with ndim=16, n_ssm=2, directions_amount=2 and normalize, less the residual it does not use
    "ssm2d": ({"directions": 2, "n_ssm": 2}, 8_960 - WIDTH),
    # CompanionSSM(model_dim=128, n_kernels=128, kernel_dim=64, skip_connection=True)
    "spacetime": ({"bidirectional": False}, 24_704),
    "vheat": ({"grid": GRID}, 67_584 + GRID[0] * GRID[1] * WIDTH),
    "sepconv": ({}, 78_082),  # SepConv(128)
    "gated_cnn": ({}, 138_154),  # GatedCNNBlock(128) without its norm
    "dico": ({}, 50_816),  # conv1, conv2, conv3 and ca of DiCoBlock(128)
    "mlp_mixer": ({"grid": GRID}, 5_869),  # mlp_tokens of MixerBlock(128, 45)
    "resmlp": ({"grid": GRID}, 2_070),  # attn of layers_scale_mlp_blocks(128, num_patches=45)
    "gmlp": ({"grid": GRID}, 151_190),  # mlp_channels of SpatialGatingBlock(128, 45, mlp_ratio=6)
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_published_layer_has_the_parameters_of_its_authors(name: str) -> None:
    params, count = COUNTS[name]
    mixer = operators.create(name, WIDTH, shell="published", **params)
    assert mixer.cost(*GRID).parameters == sum(parameter.numel() for parameter in mixer.parameters()) == count


def test_which_mixers_have_no_published_shell() -> None:
    without = [name for name in operators.names() if "published" not in operators.describe(name).shells]
    # Layers that no switches say, and one, of pde_ssm, that is not public.
    assert without == ["chimera", "gspn", "mhs", "pde_ssm", "s4", "s4d", "v2m"]


@pytest.mark.parametrize(
    ("name", "heads"),
    [("gla", 2), ("deltanet", 2), ("deltaproduct", 2), ("kda", 2), ("gated_deltanet", 3)],
)
def test_layers_of_flash_linear_attention_normalise_each_head_by_itself(name: str, heads: int) -> None:
    mixer = operators.create(name, WIDTH, shell="published")
    assert mixer.shell.norm.weight.shape == (64,)
    y = torch.randn(1, *GRID, mixer.shell.width)
    z = None if mixer.shell.spec.gate == "none" else torch.ones_like(y)
    louder = y.clone()
    louder[..., :64] *= 3  # of the first head: no head hears of it
    assert mixer.core.value_heads == heads
    assert_close(mixer.shell.leave(louder, z), mixer.shell.leave(y, z), 1e-5, "output")


@pytest.mark.parametrize("name", ["ssd", "log_linear"])
def test_layers_of_mamba_2_normalise_what_the_gate_lets_through(name: str) -> None:
    mixer = operators.create(name, WIDTH, shell="published")
    y, z = torch.randn(2, 1, *GRID, mixer.shell.width).unbind(0)
    shut = torch.full_like(z[..., :1], -3.0)  # SiLU(−3) = −0.14, the same for all channels
    assert_close(mixer.shell.leave(y, shut), -mixer.shell.leave(y, torch.ones_like(z)), 1e-3, "output")


def test_keys_of_gated_deltanet_are_half_as_wide_as_its_values_unless_told_otherwise() -> None:
    widths = {}
    for shell, params in (
        ("common", {}),
        ("published", {}),
        ("common", {"key_ratio": 0.25}),
        ("published", {"key_ratio": 1.0}),
        ("published", {"key_ratio": 0.5, "key_width": 7}),
    ):
        branch = operators.create("gated_deltanet", WIDTH, shell=shell, **params).core.branches[0]
        widths[shell, *params.items()] = branch.key_width
    assert list(widths.values()) == [64, 32, 16, 64, 7]


@pytest.mark.parametrize("ratio", [0, -1, float("nan"), "half"])
def test_a_share_of_keys_that_cannot_be_is_refused(ratio: Any) -> None:
    with pytest.raises(operators.InputError, match=r"mixer\.key_ratio=.* must be a number"):
        operators.create("gated_deltanet", WIDTH, key_ratio=ratio)


def test_queries_and_keys_of_lightnet_have_a_bias_outside_the_published_shell() -> None:
    biases = [
        operators.create("lightnet", 16, shell=shell, bias=bias).core.qk.bias is not None
        for shell in ("common", "published")
        for bias in (None, True, False)
    ]
    assert biases == [True, True, False, False, True, False]
    with pytest.raises(operators.InputError, match=r"mixer\.bias='no' is not known"):
        operators.create("lightnet", 16, bias="no")
