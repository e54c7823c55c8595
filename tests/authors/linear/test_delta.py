"""Delta rules and test-time training against their authors' code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import operators
from operators.mixers.delta.branch import NORM_EPS
from operators.shell.shell import EPS
from tests.authors.comparing import compare, fill
from tests.authors.references import FLA_TOOLS, TRITON, along_rows
from tests.authors.source import Source
from tests.authors.stand_ins import causal_convolution
from tests.authors.weights import randomised

pytestmark = pytest.mark.slow
DIM, HEADS = 16, 2
GRID = (5, 15)


class HeadNorm(nn.Module):
    """`FusedRMSNormGated` of flash-linear-attention."""

    def __init__(self, width: int, eps: float, activation: str = "silu") -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps
        self.opening = getattr(F, activation)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        opened: Tensor = F.rms_norm(x, self.weight.shape, self.weight, self.eps) * self.opening(gate)
        return opened


class CausalConvolution(nn.Module):
    """`ShortConvolution` of flash-linear-attention."""

    backend = "none"

    def __init__(self, hidden_size: int, kernel_size: int, bias: bool, activation: str) -> None:
        super().__init__()
        assert not bias
        self.weight = nn.Parameter(torch.randn(hidden_size, 1, kernel_size))
        self.kernel_size, self.activation = kernel_size, activation

    def forward(self, x: Tensor, **_: Any) -> tuple[Tensor, None]:
        return convolved(x, self.weight[:, 0], None, self.activation)


def convolved(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, backend: str = ""
) -> tuple[Tensor, None]:
    """`causal_conv1d` of flash-linear-attention, of (B, N, D)."""
    return causal_convolution(x.mT, weight, bias, activation).mT, None


def unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + NORM_EPS)


def fla(mixer: str, layer: str, kernels: dict[str, dict[str, Any]], edits: dict[str, str] | None = None) -> Any:
    """A file of flash-linear-attention's layers."""
    modules = {"RMSNorm": nn.RMSNorm, "FusedRMSNormGated": HeadNorm, "ShortConvolution": CausalConvolution}
    stubs = {**FLA_TOOLS, "fla.modules": modules, "fla.modules.convolution": {"causal_conv1d": convolved}, **kernels}
    return Source.of(mixer).load(f"fla.layers.{layer}", empty=("fla.layers",), stubs=stubs, edits=edits)


def reference(mixer: str, operation: str, name: str, edits: dict[str, str]) -> Any:
    """A reference in plain torch of flash-linear-attention, in double precision."""
    package, _, _ = operation.rpartition(".")
    packages = ("fla.ops", "fla.ops.utils", f"fla.ops.{package}")
    stubs = {**TRITON, **FLA_TOOLS}
    loaded = Source.of(mixer).load(f"fla.ops.{operation}", empty=packages, stubs=stubs, edits=edits)
    return getattr(loaded, name)


def weights(theirs: Any, writes: int = 1) -> dict[str, Tensor]:
    """The parameters of our layer but its decay, where it has one order."""
    inner = theirs.value_dim
    into, more = theirs.v_proj.weight.split([inner, (writes - 1) * inner])
    gate = getattr(theirs, "g_proj", None)
    if gate is not None:
        into = torch.cat([into, (gate if isinstance(gate, nn.Linear) else gate[0]).weight])
    convolutions = [theirs.q_conv1d, theirs.k_conv1d, theirs.v_conv1d]
    own = {
        "query_key.weight": torch.cat([theirs.q_proj.weight, theirs.k_proj.weight]),
        "strength.weight": theirs.b_proj.weight,
        "conv.weight": torch.cat([each.weight for each in convolutions]),
    }
    if writes > 1:
        own["value.weight"] = more
    shell = {"in_proj": into, "norm": theirs.o_norm.weight, "out_proj": theirs.o_proj.weight}
    return {f"shell.{name}.weight": each for name, each in shell.items()} | {
        f"core.branches.0.{name}": each for name, each in own.items()
    }


def decay(theirs: Any, *maps: nn.Linear) -> dict[str, Tensor]:
    own = {"A_log": theirs.A_log, "bias": theirs.dt_bias}
    own |= {f"maps.{place}.weight": each.weight for place, each in enumerate(maps)}
    return {f"core.branches.0.decay.{name}": each for name, each in own.items()}


def shared(ours: Any, theirs: Any) -> list[tuple[Tensor, Tensor]]:
    """Parameters that are one in both."""
    branch = ours.core.branches[0]
    pairs = [(branch.strength.weight, theirs.b_proj.weight), (ours.shell.norm.weight, theirs.o_norm.weight)]
    return pairs if branch.decay is None else [*pairs, (branch.decay.A_log, theirs.A_log)]


@pytest.mark.parametrize("negative", [False, True])
def test_deltanet(negative: bool) -> None:
    naive = reference("deltanet", "delta_rule.naive", "delta_rule_recurrence", {"x.float()": "x"})

    def rule(*, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, **rest: Any) -> tuple[Tensor, None]:
        assert rest["use_qk_l2norm_in_kernel"]
        y = naive(*(t.transpose(1, 2) for t in (unit(q), unit(k), v, beta)))[0]
        return y.transpose(1, 2), None

    module = fla("deltanet", "delta_net", {"fla.ops.delta_rule": {"chunk_delta_rule": rule}})
    theirs = randomised(module.DeltaNet(hidden_size=DIM, num_heads=HEADS, allow_neg_eigval=negative, norm_eps=EPS))
    ours: Any = operators.create(
        "deltanet", DIM, shell="published", orders=["row"], heads=HEADS, negative_eigenvalues=negative
    ).double()
    fill(ours, weights(theirs))
    x = torch.randn(2, *GRID, DIM, dtype=torch.float64)
    compare(f"deltanet {negative}", ours, along_rows(theirs), x, same=shared(ours, theirs))


@pytest.mark.parametrize("negative", [False, True])
def test_gated_deltanet(negative: bool) -> None:
    double = {"torch.float32": "torch.float64"}
    naive = reference("gated_deltanet", "gated_delta_rule.naive", "naive_recurrent_gated_delta_rule", double)
    gate = reference("gated_deltanet", "gated_delta_rule.gate", "naive_gdn_gate", double | {".float()": ""})

    def rule(
        *, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, A_log: Tensor, dt_bias: Tensor, **rest: Any
    ) -> tuple[Tensor, None]:
        within = ("use_qk_l2norm_in_kernel", "use_gate_in_kernel", "use_beta_sigmoid_in_kernel")
        assert all(rest[name] for name in within)
        strength = beta.sigmoid() * (2 if rest["allow_neg_eigval"] else 1)
        return naive(unit(q), unit(k), v, strength, gate(g, A_log, dt_bias))[0], None

    module = fla("gated_deltanet", "gated_deltanet", {"fla.ops.gated_delta_rule": {"chunk_gated_delta_rule": rule}})
    sizes = {"hidden_size": DIM, "head_dim": 6, "num_heads": HEADS, "expand_v": 2, "allow_neg_eigval": negative}
    theirs = randomised(module.GatedDeltaNet(**sizes, norm_eps=EPS))
    ours: Any = operators.create(
        "gated_deltanet", DIM, shell="published", orders=["row"], heads=HEADS, negative_eigenvalues=negative
    ).double()
    fill(ours, weights(theirs) | decay(theirs, theirs.a_proj))
    x = torch.randn(2, *GRID, DIM, dtype=torch.float64)
    compare(f"gated_deltanet {negative}", ours, along_rows(theirs), x, same=shared(ours, theirs))


@pytest.mark.parametrize("negative", [False, True])
def test_kda(negative: bool) -> None:
    naive = reference("kda", "kda.naive", "naive_recurrent_kda", {"torch.float)": "torch.float64)"})
    gate = reference("kda", "kda.gate", "naive_kda_gate", {"torch.float32": "torch.float64", ".float()": ""})

    def rule(
        *, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, A_log: Tensor, dt_bias: Tensor, **rest: Any
    ) -> tuple[Tensor, None]:
        within = ("use_qk_l2norm_in_kernel", "use_gate_in_kernel", "use_beta_sigmoid_in_kernel")
        assert all(rest[name] for name in within)
        assert not rest["safe_gate"]
        strength = beta.sigmoid() * (2 if rest["allow_neg_eigval"] else 1)
        return naive(unit(q), unit(k), v, gate(g, A_log, dt_bias), strength)[0], None

    module = fla("kda", "kda", {"fla.ops.kda": {"chunk_kda": rule}})
    width = DIM // HEADS
    sizes = {"hidden_size": DIM, "head_dim": width, "num_heads": HEADS, "allow_neg_eigval": negative}
    theirs = randomised(module.KimiDeltaAttention(**sizes, norm_eps=EPS))
    theirs.g_proj[1].bias.data.zero_()  # which the paper does not have, nor our shell
    shell = {"name": "published", "gate_rank": width}
    ours: Any = operators.create(
        "kda", DIM, shell=shell, orders=["row"], heads=HEADS, negative_eigenvalues=negative
    ).double()
    gates = {"shell.gate_proj.weight": theirs.g_proj[1].weight}
    fill(ours, weights(theirs) | gates | decay(theirs, *theirs.f_proj))
    x = torch.randn(2, *GRID, DIM, dtype=torch.float64)
    compare(f"kda {negative}", ours, along_rows(theirs), x, same=shared(ours, theirs))


@pytest.mark.parametrize(("steps", "gated"), [(2, True), (3, False), (1, True)])
def test_deltaproduct(steps: int, gated: bool) -> None:
    double = {"x.float()": "x", "torch.float32": "torch.float64"}
    naive = reference("deltaproduct", "gated_delta_product.naive", "naive_recurrent_gated_delta_product", double)

    def rule(
        *, q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, beta: Tensor, num_householder: int, **rest: Any
    ) -> tuple[Tensor, None]:
        assert rest["use_qk_l2norm_in_kernel"]
        scaled = unit(q) * q.shape[-1] ** -0.5
        y = naive(scaled, unit(k), v, g, beta, scale=None, cu_seqlens=None, num_householder=num_householder)
        return y[0], None

    kernels: dict[str, dict[str, Any]] = {
        "fla.ops.gated_delta_product": {"chunk_gated_delta_product": rule},
        "fla.ops.gated_delta_rule": {},
    }
    module = fla("deltaproduct", "gated_deltaproduct", kernels, edits={".float()": ""})
    sizes = {"hidden_size": DIM, "head_dim": DIM // HEADS, "num_heads": HEADS, "expand_v": 1, "use_output_gate": False}
    theirs = randomised(module.GatedDeltaProduct(num_householder=steps, use_forget_gate=gated, norm_eps=EPS, **sizes))
    ours: Any = operators.create(
        "deltaproduct", DIM, shell="published", orders=["row"], heads=HEADS, steps=steps, gated=gated
    ).double()
    fill(ours, weights(theirs, steps) | (decay(theirs, theirs.a_proj) if gated else {}))
    x = torch.randn(2, *GRID, DIM, dtype=torch.float64)
    compare(f"deltaproduct {steps} {gated}", ours, along_rows(theirs), x, same=shared(ours, theirs))


@pytest.mark.parametrize(("heads", "grid"), [(6, (5, 7)), (12, (9, 4)), (6, (1, 3))])
def test_ttt(heads: int, grid: tuple[int, int]) -> None:
    dim = 24
    width = dim // heads
    module = Source.of("ttt").load(
        "ttt_block", root="vittt/models", stubs={"timm.models.layers": {"trunc_normal_": nn.init.trunc_normal_}}
    )
    theirs = randomised(module.TTT(dim, heads))
    shell = {"name": "published", "expand": 1 + 1 / heads}
    ours: Any = operators.create("ttt", dim, shell=shell, heads=heads).double()
    named = {"core.weight": torch.cat([theirs.w1, theirs.w2], -1)[0], "core.kernel": theirs.w3.flatten(1)}
    for name, parameter in theirs.qkv.named_parameters():
        q, k, v, local_q, local_k, local_v = parameter.split([dim] * 3 + [width] * 3)
        named[f"core.qk.{name}"] = torch.cat([q, local_q, k, local_k])
        named[f"shell.in_proj.{name}"] = torch.cat([v, local_v])
    named |= {f"shell.out_proj.{name}": each for name, each in theirs.proj.named_parameters()}
    fill(ours, named)
    x = torch.randn(2, *grid, dim, dtype=torch.float64)
    plain = lambda x: theirs(x.flatten(1, 2), *grid).view(x.shape)  # noqa: E731
    compare(f"ttt {heads} {grid}", ours, plain, x, same=[(ours.shell.out_proj.weight, theirs.proj.weight)])
