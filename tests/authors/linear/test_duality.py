"""Mixers of state-space duality against their authors' code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import operators
from operators.shell.shell import EPS
from tests.authors.comparing import compare, fill
from tests.authors.references import FLA_TOOLS, TRITON, along_rows, gated_norm
from tests.authors.source import Source
from tests.authors.stand_ins import causal_convolution
from tests.authors.weights import randomised

pytestmark = pytest.mark.slow
DIM, INNER, STATES, HEADS, WIDTH = 8, 16, 6, 2, 8
CHUNK = 15
FUSED = "mamba_ssm.ops.triton.ssd_combined"
GATED_NORM = "mamba_ssm.ops.triton.layernorm_gated"


def images(*grid: int, dim: int = DIM) -> Tensor:
    return torch.randn(2, *grid, dim, dtype=torch.float64)


def chunk_scan() -> Callable[..., Tensor]:
    """`mamba_chunk_scan_combined`, by `ssd_minimal_discrete` of the same repository."""
    minimal = Source.of("ssd").load("mamba_ssm.modules.ssd_minimal", stubs={FUSED: {}}).ssd_minimal_discrete

    def scan(
        x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_size: int, D: Tensor | None = None, **rest: Any
    ) -> Tensor:
        assert all(value is None for value in rest.values()), rest
        B, C = (t.repeat_interleave(x.shape[2] // t.shape[2], 2) for t in (B, C))
        y: Tensor = minimal(x * dt[..., None], A * dt, B, C, chunk_size)[0]
        return y if D is None else y + D[:, None] * x

    return scan


def mamba_stubs() -> dict[str, dict[str, Any]]:
    norm = gated_norm(Source.of("ssd"), GATED_NORM, "RMSNorm")
    return {FUSED: {"mamba_chunk_scan_combined": chunk_scan()}, GATED_NORM: {"RMSNorm": norm}}


def projections(theirs: Any) -> tuple[dict[str, Tensor], Tensor]:
    """The parameters of our shell but its norm, and the rows of their map into the layer that our core has."""
    gate, values, core = theirs.in_proj.weight.split([INNER, INNER, len(theirs.in_proj.weight) - 2 * INNER])
    return {"shell.in_proj.weight": torch.cat([values, gate]), "shell.out_proj.weight": theirs.out_proj.weight}, core


def of(place: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{place}.{name}": each for name, each in module.named_parameters()}


def test_ssd() -> None:
    module = Source.of("ssd").load("mamba_ssm.modules.mamba2_simple", stubs=mamba_stubs())
    sizes = {"d_state": STATES, "headdim": WIDTH, "chunk_size": CHUNK}
    theirs = randomised(module.Mamba2Simple(DIM, use_mem_eff_path=False, **sizes))
    theirs.norm.eps = EPS
    ours: Any = operators.create("ssd", DIM, shell="published", orders=["row"], state_dim=STATES, heads=HEADS).double()
    shell, core = projections(theirs)
    own = {"project.weight": core, "A_log": theirs.A_log, "D": theirs.D, "step_bias": theirs.dt_bias}
    own |= of("conv", theirs.conv1d)
    named = {f"core.branches.0.{name}": each for name, each in own.items()}
    fill(ours, shell | named | of("shell.norm", theirs.norm))
    branch = ours.core.branches[0]
    same = [
        (branch.A_log, theirs.A_log),
        (branch.step_bias, theirs.dt_bias),
        (branch.conv.weight, theirs.conv1d.weight),
    ]
    compare("ssd", ours, along_rows(theirs), images(5, 15), same=same)


@pytest.mark.parametrize("grid", [(5, 15), (3, 1)])
def test_vssd(grid: tuple[int, int]) -> None:
    stubs: dict[str, dict[str, Any]] = {
        "timm.models.layers": {},
        "fvcore.nn": {},
        FUSED: {},
        GATED_NORM: {},
        "mamba_ssm.ops.triton.selective_state_update": {},
    }
    module = Source.of("vssd").load("mamba2", root="classification/models", stubs=stubs)
    theirs = randomised(module.Mamba2(DIM, headdim=WIDTH, d_state=STATES, linear_attn_duality=True))
    ours: Any = operators.create("vssd", DIM, shell="published", state_dim=STATES, heads=HEADS).double()
    shell, core = projections(theirs)
    own = {"project.weight": core, "A_log": theirs.A_log, "D": theirs.D, "step_bias": theirs.dt_bias}
    convolution = theirs.conv2d
    filters = {
        f"{place}.conv.{name}": each[rows]
        for name, each in convolution.named_parameters()
        for place, rows in (("shell", slice(INNER)), ("core", slice(INNER, None)))
    }
    named = {f"core.{name}": each for name, each in own.items()}
    fill(ours, shell | named | filters | of("shell.norm", theirs.norm))
    same = [(ours.core.A_log, theirs.A_log), (ours.core.D, theirs.D), (ours.core.step_bias, theirs.dt_bias)]
    plain = lambda x: theirs(x.flatten(1, 2), *grid).as_subclass(Tensor).view(x.shape)  # noqa: E731
    compare(f"vssd {grid}", ours, plain, images(*grid), same=same)


@pytest.mark.parametrize("side", [6, 5])
def test_hsm_ssd(side: int) -> None:
    module = Source.of("hsm_ssd").load(
        "classification.models.EfficientViM",
        empty=("classification.models",),
        stubs={"timm.layers": {"SqueezeExcite": nn.Module}, "timm.models": {}, "fvcore.nn": {}},
    )
    theirs = randomised(module.HSMSSD(DIM, state_dim=STATES))
    ours: Any = operators.create("hsm_ssd", DIM, shell="published", state_dim=STATES).double()
    maps = {"project": theirs.BCdt_proj, "enter": theirs.hz_proj, "leave": theirs.out_proj}
    named = {f"core.{name}.weight": each.conv.weight[..., 0] for name, each in maps.items()}
    fill(ours, named | {"core.conv.weight": theirs.dw.conv.weight, "core.skip": theirs.D})
    same = [(ours.core.skip, theirs.D), (ours.core.conv.weight, theirs.dw.conv.weight)]
    plain = lambda x: theirs(x.flatten(1, 2).mT)[0].movedim(1, -1)  # noqa: E731
    compare(f"hsm_ssd {side}", ours, plain, images(side, side), same=same)


def test_hydra() -> None:
    module = Source.of("hydra").load(
        "hydra.modules.hydra",
        empty=("hydra", "hydra.modules"),
        stubs={**mamba_stubs(), "hydra.modules.ops": {}},
        edits={"self.A_log.float()": "self.A_log"},
    )
    theirs = randomised(module.Hydra(DIM, d_state=STATES, headdim=WIDTH, chunk_size=CHUNK))
    theirs.norm.eps = EPS
    ours: Any = operators.create("hydra", DIM, shell="published", state_dim=STATES, heads=HEADS).double()
    shell, core = projections(theirs)
    own = {"project.weight": core, "A_log": theirs.A_log, "D": theirs.D, "step_bias": theirs.dt_bias}
    own |= {"diagonal.weight": theirs.fc_D.weight} | of("conv", theirs.conv1d)
    named = {f"core.{name}": each for name, each in own.items()}
    fill(ours, shell | named | of("shell.norm", theirs.norm))
    same = [(ours.core.A_log, theirs.A_log), (ours.core.step_bias, theirs.dt_bias), (ours.core.D, theirs.D)]
    same += [(ours.core.diagonal.weight, theirs.fc_D.weight), (ours.core.conv.weight, theirs.conv1d.weight)]
    compare("hydra", ours, along_rows(theirs), images(5, 15), same=same)


@pytest.mark.parametrize("rotated", [0.5, 1.0])
def test_mamba3(rotated: float) -> None:
    source, states = Source.of("mamba3"), 10
    kernels = [f"mamba_ssm.ops.triton.mamba3.mamba3_{name}" for name in ("siso_combined", "siso_step")]
    reference = source.load(
        "test_mamba3_siso",
        root="tests/ops/triton",
        stubs={**TRITON, **{kernel: {} for kernel in kernels}},
        edits={"torch.float32": "torch.float64"},
    ).mamba3_siso_step_ref

    def stepwise(*, chunk_size: int, return_final_states: bool, cu_seqlens: None, **given: Any) -> Tensor:
        assert not return_final_states
        y: Tensor = reference(**given)[0]
        return y

    stubs: dict[str, dict[str, Any]] = {
        GATED_NORM: {"RMSNorm": gated_norm(source, GATED_NORM, "RMSNorm")},
        kernels[0]: {"mamba3_siso_combined": stepwise},
        "mamba_ssm.ops.triton.mamba3.mamba3_mimo_rotary_step": {},
        "mamba_ssm.ops.tilelang.mamba3.mamba3_mimo": {},
        "mamba_ssm.ops.cute.mamba3.mamba3_step_fn": {},
    }
    module = source.load("mamba_ssm.modules.mamba3", stubs=stubs, edits={"torch.float32": "torch.float64"})
    theirs = randomised(module.Mamba3(DIM, d_state=states, headdim=WIDTH, rope_fraction=rotated))
    sizes: dict[str, Any] = {"state_dim": states, "heads": HEADS, "rotated": rotated}
    ours: Any = operators.create("mamba3", DIM, shell="published", orders=["row"], **sizes).double()
    pairs = ours.core.branches[0].pairs
    # Neighbours are a pair there, channels i and i + pairs here.
    place = torch.cat([torch.arange(2 * pairs).view(pairs, 2).T.flatten(), torch.arange(2 * pairs, states)])
    shell, core = projections(theirs)
    core = torch.cat([core[:states][place], core[states : 2 * states][place], core[2 * states :]])
    own = {"project.weight": core, "D": theirs.D, "step_bias": theirs.dt_bias}
    own["gain"] = torch.stack([theirs.B_norm.weight, theirs.C_norm.weight])[:, place]
    own["bias"] = torch.stack([theirs.B_bias[:, 0], theirs.C_bias[:, 0]])[..., place]
    fill(ours, shell | {f"core.branches.0.{name}": each for name, each in own.items()})
    branch = ours.core.branches[0]
    same = [(branch.D, theirs.D), (branch.step_bias, theirs.dt_bias)]
    same += [(ours.shell.out_proj.weight, theirs.out_proj.weight)]
    compare(f"mamba3 {rotated}", ours, along_rows(theirs), images(5, 15), same=same)


def test_log_linear() -> None:
    source = Source.of("log_linear")
    tools: dict[str, dict[str, Any]] = {"fla.utils": {}}
    reference = source.load(
        "fla.ops.log_linear_attn.naive", empty=("fla.ops", "fla.ops.log_linear_attn"), stubs=tools
    ).naive_log_linear_attn

    def naive(*, q: Tensor, k: Tensor, v: Tensor, g: Tensor, level_scales: Tensor, **_: Any) -> tuple[Tensor, None]:
        q, k = (t.expand(-1, -1, v.shape[2], -1) for t in (q, k))
        return reference(q, k, v, g, level_scales), None

    module = source.load(
        "fla.layers.log_linear_mamba2",
        empty=("fla.layers",),
        stubs={
            **FLA_TOOLS,
            "transformers.activations": {"ACT2FN": {"silu": nn.SiLU()}},
            "transformers.utils": {},
            "fla.layers.mamba2": {
                "apply_mask_to_padding_states": lambda hidden_states, attention_mask: hidden_states,
                "causal_conv1d_fn": causal_convolution,
            },
            "fla.modules.layernorm_gated": {
                "RMSNormGated": gated_norm(source, "fla.modules.layernorm_gated", "RMSNormGated")
            },
            "fla.ops.log_linear_attn.chunk": {"chunk_log_linear_attn": naive},
        },
        edits={"self.A_log.float()": "self.A_log"},
    )
    sizes = {"num_heads": HEADS, "head_dim": WIDTH, "hidden_size": DIM, "state_size": STATES}
    theirs = randomised(module.LogLinearMamba2(**sizes, use_bias=False, use_conv_bias=True, norm_eps=EPS)).eval()
    ours: Any = operators.create(
        "log_linear", DIM, shell="published", orders=["row"], state_dim=STATES, heads=HEADS
    ).double()
    shell, core = projections(theirs)
    core, scale = core.split([2 * STATES + HEADS, HEADS * theirs.num_lambda_dims])
    own = {"project.weight": core, "scale.weight": scale, "level_gain": theirs.L}
    own |= {"A_log": theirs.A_log, "D": theirs.D, "step_bias": theirs.dt_bias} | of("conv", theirs.conv1d)
    named = {f"core.branches.0.{name}": each for name, each in own.items()}
    fill(ours, shell | named | of("shell.norm", theirs.norm))
    branch = ours.core.branches[0]
    same = [(branch.A_log, theirs.A_log), (branch.level_gain, theirs.L), (branch.step_bias, theirs.dt_bias)]
    compare("log_linear", ours, along_rows(theirs.cuda_kernels_forward), images(9, 17), same=same)
