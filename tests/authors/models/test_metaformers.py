"""Whole models of `models.published.metaformers` against their authors': all weights copied, oblong and odd grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models
from models.published import MODELS
from models.spec import MixerSpec, StageMixers
from tests.authors.comparing import compare, fill
from tests.authors.source import Source

pytestmark = pytest.mark.slow

LAYERS: dict[str, Any] = {
    "DropPath": type("DropPath", (nn.Identity,), {}),
    "to_2tuple": lambda x: x if isinstance(x, tuple) else (x, x),
    "trunc_normal_": nn.init.trunc_normal_,
}
TIMM: dict[str, dict[str, Any]] = {
    "timm.data": {},
    "timm.models.layers": LAYERS,
    "timm.models.layers.helpers": LAYERS,
    "timm.models.registry": {},
}


def loaded(name: str, module: str, **options: Any) -> Any:
    """A module of the repository that a published model names."""
    stubs = TIMM | options.pop("stubs", {})
    return Source.within(MODELS[name].source).load(module, stubs=stubs, **options)


def randomised(model: nn.Module) -> nn.Module:
    """The model in float64 with random parameters, which keep the scale of what they map."""
    for parameter in model.double().eval().parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def ours(name: str, size: tuple[int, int] = (224, 224), mixers: StageMixers | None = None) -> models.Trunk:
    return models.create(name, mixers=mixers, image_size=size, in_channels=3, num_classes=1000).double().eval()


def translated(
    theirs: nn.Module, blocks: Sequence[str], inside: Mapping[str, str], outside: Mapping[str, str]
) -> dict[str, Tensor]:
    """Their parameters by our names; maps `mixer.qkv` are cut into those of queries and keys, and those of values.

    Args:
        theirs: the model.
        blocks: what the names of their blocks start with, first block first.
        inside: their names of a block's modules, or parameters, and ours.
        outside: the same of all else.
    """
    weights: dict[str, Tensor] = {}
    for name, weight in theirs.named_parameters():
        place, inner, words = "", name, outside
        for number, prefix in enumerate(blocks):
            if name.startswith(prefix):
                place, inner, words = f"blocks.{number}.", name.removeprefix(prefix), inside
        module, _, leaf = inner.rpartition(".")
        own = place + (words[inner] if inner in words else f"{words[module]}.{leaf}")
        if ".qkv." in own:
            *queries_keys, values = weight.chunk(3)
            weights[own.replace("qkv", "core.qk")] = torch.cat(queries_keys)
            weights[own.replace("qkv", "shell.in_proj")] = values
        else:
            weights[own] = weight
    return weights


def downs(their_names: str, parts: Mapping[str, str], first: int) -> dict[str, str]:
    """Their names of what lies between stages, numbered from `first`, and ours."""
    return {
        f"{their_names.format(first + stage)}.{theirs}": f"downs.{stage}.{own}"
        for stage in range(3)
        for theirs, own in parts.items()
    }


@pytest.mark.parametrize("name", ["convformer_s18", "caformer_s18"])
def test_metaformers(name: str) -> None:
    theirs = randomised(getattr(loaded(name, "metaformer_baselines"), name)())
    inside = {
        "norm1": "mixer_norm",
        "norm2": "ffn_norm",
        "res_scale1.scale": "mixer_residual.value",
        "res_scale2.scale": "ffn_residual.value",
        "mlp.fc1": "ffn.up",
        "mlp.act.scale": "ffn.scale.value",
        "mlp.act.bias": "ffn.shift.value",
        "mlp.fc2": "ffn.down",
        "token_mixer.pwconv1": "mixer.shell.in_proj",
        "token_mixer.act1.scale": "mixer.core.scale",
        "token_mixer.act1.bias": "mixer.core.shift",
        "token_mixer.dwconv": "mixer.core.conv",
        "token_mixer.pwconv2": "mixer.shell.out_proj",
        "token_mixer.qkv": "mixer.qkv",
        "token_mixer.proj": "mixer.shell.out_proj",
    }
    outside = {
        "downsample_layers.0.conv": "stem.layers.1",
        "downsample_layers.0.post_norm": "stem.layers.2",
        **downs("downsample_layers.{}", {"pre_norm": "pre_norm", "conv": "conv"}, 1),
        "norm": "head.norm",
        "head.fc1": "head.up",
        "head.norm": "head.inner_norm",
        "head.fc2": "head.linear",
    }
    blocks = [f"stages.{stage}.{block}." for stage, depth in enumerate((3, 3, 9, 3)) for block in range(depth)]
    model = ours(name)
    fill(model, translated(theirs, blocks, inside, outside))
    compare(name, model, theirs, torch.randn(2, 3, 60, 92, dtype=torch.float64))


def test_mambaout_t() -> None:
    theirs = randomised(loaded("mambaout_t", "mambaout", root="models").mambaout_tiny())
    inside = {
        "norm": "mixer_norm",
        "fc1": "mixer.shell.in_proj",
        "conv": "mixer.core.conv",
        "fc2": "mixer.shell.out_proj",
    }
    outside = {
        **{
            f"downsample_layers.0.{part}": f"stem.layers.{place}"
            for part, place in {"conv1": 0, "norm1": 1, "conv2": 3, "norm2": 4}.items()
        },
        **downs("downsample_layers.{}", {"conv": "conv", "norm": "norm"}, 1),
        "norm": "head.norm",
        "head.fc1": "head.up",
        "head.norm": "head.inner_norm",
        "head.fc2": "head.linear",
    }
    blocks = [f"stages.{stage}.{block}." for stage, depth in enumerate((3, 3, 9, 3)) for block in range(depth)]
    weights = translated(theirs, blocks, inside, outside)
    for name, weight in weights.items():
        if ".in_proj." in name:
            weights[name] = torch.cat(weight.chunk(2)[::-1])  # the gate is in front there
    model = ours("mambaout_t")
    fill(model, weights)
    compare("mambaout_t", model, theirs, torch.randn(2, 3, 61, 93, dtype=torch.float64))


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize(("window", "size"), [(7, (224, 224)), (2, (128, 192))])
def test_swin_t(window: int, size: tuple[int, int]) -> None:
    """Of an oblong image, grids of all stages have whole windows of 2 × 2 tokens, two of them or more to a side."""
    module = loaded("swin_t", "swin_transformer", root="models", edits={"sys.path.append(kernel_path)": "pass"})
    theirs = randomised(module.SwinTransformer(img_size=size, window_size=window))
    heads = [stage[0].params["heads"] for stage in MODELS["swin_t"].mixers.stages]
    mixers = StageMixers(
        tuple((MixerSpec("window", {"heads": each, "window": window}, "published"),) for each in heads)
    )
    inside = {
        "norm1": "mixer_norm",
        "attn.relative_position_bias_table": "mixer.core.table",
        "attn.qkv": "mixer.qkv",
        "attn.proj": "mixer.shell.out_proj",
        "norm2": "ffn_norm",
        "mlp.fc1": "ffn.up",
        "mlp.fc2": "ffn.down",
    }
    outside = {
        "patch_embed.proj": "stem.layers.1",
        "patch_embed.norm": "stem.layers.2",
        **downs("layers.{}.downsample", {"norm": "norm", "reduction": "linear"}, 0),
        "norm": "head.norm",
        "head": "head.linear",
    }
    blocks = [f"layers.{stage}.blocks.{block}." for stage, depth in enumerate((2, 2, 6, 2)) for block in range(depth)]
    weights = translated(theirs, blocks, inside, outside)
    weights["stem.layers.1.weight"] = weights["stem.layers.1.weight"].flatten(1)
    side = 2 * window - 1
    for name, weight in weights.items():
        if name.endswith(".table"):
            weights[name] = weight.T.unflatten(1, (side, side)).flip(1, 2)  # of queries seen from keys
    model = ours("swin_t", size, mixers)
    fill(model, weights)
    compare(f"swin_t, windows of {window}", model, theirs, torch.randn(1, 3, *size, dtype=torch.float64))


def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> Tensor:
    """Mamba's selective scan of u (B, D, N), token by token, with B and C (B, 1, S, N)."""
    step = F.softplus(delta + bias[:, None])
    state, outputs = torch.zeros(1, dtype=u.dtype), []
    for token in range(u.shape[-1]):
        fed = (step * u)[..., token, None] * B[..., token]
        state = (step[..., token, None] * A).exp() * state + fed
        outputs.append((state * C[..., token]).sum(-1))
    return torch.stack(outputs, -1) + D[:, None] * u


def test_msvmamba_t() -> None:
    module = loaded(
        "msvmamba_t",
        "classification.models.vmamba",
        empty=("classification.models",),
        stubs={"fvcore.nn": {}, "selective_scan_cuda_core": {"scan": scan}},
        edits={
            "SelectiveScan.apply(u, delta, A, B, C, D, delta_bias, delta_softplus, nrows)": "selective_scan_cuda_core."
            "scan(u, delta, A, B, C, D, delta_bias)",
            "to(torch.float)": "to(torch.float64)",
        },
    )
    theirs = module.VSSM(
        depths=[1, 2, 9, 2],
        dims=96,
        ssm_d_state=1,
        mlp_ratio=0.0,
        downsample_version="v1",
        patchembed_version="v1",
        sscore_type="multiscale_4scan_12",
        add_se=True,
        convFFN=True,
        ms_split=[1, 3],
        ms_stage=[0, 1, 2, 3],
    )
    starts = {name: start.detach().double() for name, start in theirs.named_parameters()}
    for name, parameter in randomised(theirs).named_parameters():
        if name.endswith(("A_logs", "Ds", "dt_projs_bias")):
            parameter.data = starts[name] + 0.3 * torch.randn_like(parameter)
    inside = {
        "norm": "mixer_norm",
        "op.in_proj": "mixer.shell.in_proj",
        "op.conv2d": "mixer.core.conv",
        "op.conv2d_b1": "mixer.core.coarse_conv",
        "op.x_proj_weight": "mixer.core.branches.project.weight",
        "op.dt_projs_weight": "mixer.core.branches.step.weight",
        "op.dt_projs_bias": "mixer.core.branches.step.bias",
        "op.A_logs": "mixer.core.branches.A_log",
        "op.Ds": "mixer.core.branches.D",
        "op.out_norm": "mixer.core.norm",
        "op.se.fc.0": "mixer.core.excitation.0",
        "op.se.fc.2": "mixer.core.excitation.1",
        "op.out_proj": "mixer.shell.out_proj",
        "norm2": "ffn_norm",
        "convFFN.linear1": "ffn.up",
        "convFFN.dwc": "ffn.conv",
        "convFFN.linear2": "ffn.down",
    }
    outside = {
        "patch_embed.0": "stem.layers.1",
        "patch_embed.2": "stem.layers.2",
        **downs("layers.{}.downsample", {"norm": "norm", "reduction": "linear"}, 0),
        "classifier.norm": "head.norm",
        "classifier.head": "head.linear",
    }
    blocks = [f"layers.{stage}.blocks.{block}." for stage, depth in enumerate((1, 2, 9, 2)) for block in range(depth)]
    model, weights = ours("msvmamba_t"), {}
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    for name, weight in translated(theirs, blocks, inside, outside).items():
        # Their scans are parts of one parameter, the coarse one first; 1 × 1 convolutions are linear maps.
        parts = weight.chunk(2)[::-1] if "branches." in name else (weight,)
        for number, part in enumerate(parts):
            own = name.replace("branches.", f"branches.{number}.")
            weights[own] = part.reshape(shapes[own])
    fill(model, weights)
    for mixer in model.mixers:
        mixer.core.get_submodule("norm").eps = 1e-5  # type: ignore[assignment]
    compare("msvmamba_t", model, theirs, torch.randn(1, 3, 60, 92, dtype=torch.float64))
