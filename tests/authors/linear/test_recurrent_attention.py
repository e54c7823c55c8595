"""Linear attentions along orders of the grid against their authors' code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import operators
from tests.authors.comparing import compare, fill
from tests.authors.source import Source
from tests.authors.weights import joined, named, of, pairs, randomised, split

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("float64")]
WIDTH = 16
VARIANTS = {"lit": "Lit", "d": "Decay", "s": "Selective"}


def without_class_token() -> dict[str, str]:
    """Edits of LION: all tokens have decays of their own, and orders are of the grid's tokens alone.

    Decays that x selects have gradients, which theirs, copied by `torch.tensor`, do not.
    """
    edits = {}
    for name, curve in (("a_i", ""), ("a2_i", "[..., self.rev_s_curv_ind]")):
        decay = f"self.{name}(x).transpose(-1, -2).sigmoid"
        edits[f"torch.tensor({decay}_().neg_().add_(1),dtype=torch.float32)[:, :, 1:]{curve}"] = (
            f"(1 - {decay}()){curve}"
        )
        edits[f"{name} = torch.cat((torch.ones_like({name}[..., :1]), {name}), dim=-1)"] = "pass"
    for order in ("s_curv_ind", "s_curv_ind_inv", "rev_s_curv_ind", "rev_s_curv_ind_inv"):
        edits[f"torch.cat((torch.tensor([-1]),self.{order})) + 1"] = f"self.{order}"
    return edits


@pytest.mark.filterwarnings("ignore:torch.range")
@pytest.mark.parametrize(
    ("variant", "curves", "grid"),
    [("lit", 1, (5, 7)), ("d", 1, (5, 7)), ("d", 2, (5, 5)), ("s", 1, (5, 7)), ("s", 2, (6, 6))],
)
def test_lion(variant: str, curves: int, grid: tuple[int, int]) -> None:
    """Without its class token. Their two curves are of square grids."""
    heads = 2
    module = Source.of("lion").load(
        "lion.models_lion",
        root="img_classification",
        empty=("lion",),
        stubs={name: {} for name in ("timm.models.vision_transformer", "timm.models.registry", "timm.models.layers")},
        edits=without_class_token(),
    )
    theirs = module.Lion_Attention(
        WIDTH,
        heads,
        qkv_bias=True,
        mask_type=VARIANTS[variant],
        order="Normal" if curves == 1 else "S",
        num_patches=grid[0] * grid[1] + 1,
    )
    randomised(theirs)
    orders = ["row"] if curves == 1 else ["snake_row", "snake_col"]
    ours = operators.create("lion", WIDTH, shell="published", heads=heads, variant=variant, orders=orders)
    *qk, v = split(of(theirs.qkv), *[WIDTH] * 3)
    decays = [getattr(theirs, name) for name in ("a_i", "a2_i")[:curves] if hasattr(theirs, name)]
    weights = named(shell__in_proj=v, shell__out_proj=of(theirs.proj), core__query_key=joined(*qk))
    if variant == "d":
        weights["core.decay"] = torch.stack(decays)
    elif variant == "s":
        weights |= named(core__select=joined(*map(of, decays)))
    fill(ours, weights)
    same = {"shell.out_proj.weight": theirs.proj.weight}
    if variant == "s" and curves == 1:
        same["core.select.weight"] = theirs.a_i.weight
    compare(
        f"lion, {variant}, {'two curves' if curves == 2 else 'rows'}",
        ours,
        lambda x: theirs(x.flatten(1, 2)).view(x.shape),
        torch.randn(2, *grid, WIDTH),
        same=pairs(ours, same),
    )


class Fla:
    """Layers of flash-linear-attention, with its own plain functions in the place of its kernels."""

    def __init__(self) -> None:
        self.source = Source.of("gla")
        self.recurrence = self.source.load(
            "fla.ops.gla.naive",
            empty=("fla", "fla.ops", "fla.ops.gla"),
            edits={".float()": "", "dtype=torch.float32": "dtype=q.dtype"},
        ).naive_recurrent_gla
        self.norm = self.source.load(
            "fla.modules.layernorm_gated",
            empty=("fla", "fla.modules"),
            stubs={"triton": {}, "triton.language": {}, "fla.utils": {}},
            edits={".float()": ""},
        ).rms_norm_ref

    def layer(self, name: str, gla: Any) -> Any:
        """The module of a layer, `gla` for its recurrence."""
        norm = self.norm

        class FusedRMSNormGated(nn.Module):
            bias = None

            def __init__(self, hidden_size: int, **_: Any) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.ones(hidden_size))

            def forward(self, x: Tensor, g: Tensor) -> Tensor:
                y: Tensor = norm(x, self.weight, None, z=g, upcast=False)
                return y

        def norm_and_map(x: Tensor, g: Tensor, weight: Tensor, bias: None, out: Tensor, out_bias: None) -> Tensor:
            return F.linear(norm(x, weight, bias, z=g, upcast=False), out, out_bias)

        nothing = {
            "get_layer_cache": lambda *_: None,
            "update_layer_cache": lambda *_, **__: None,
            "unpad_hidden_states": lambda states, lengths, *_: (states, None, lengths),
            "repad_hidden_states": lambda states, *_: states,
        }
        return self.source.load(
            f"fla.layers.{name}",
            empty=("fla", "fla.layers"),
            stubs={
                "fla.layers.utils": nothing,
                "fla.modules": {"FusedRMSNormGated": FusedRMSNormGated},
                "fla.modules.activations": {"ACT2FN": {}},
                "fla.modules.fused_norm_gate": {"rms_norm_swish_gate_linear": norm_and_map},
                "fla.ops.gla": {"fused_recurrent_gla": gla},
            },
            edits={"k.float()": "k"} if name == "lightnet" else None,
        )


def test_gla() -> None:
    """The whole layer along rows, with the ε of our shell's norm."""
    fla, heads = Fla(), 2

    def recurrence(*, q: Tensor, k: Tensor, v: Tensor, gk: Tensor, **_: Any) -> Any:
        return fla.recurrence(q, k, v, gk)

    theirs = randomised(fla.layer("gla", recurrence).GatedLinearAttention(hidden_size=WIDTH, num_heads=heads))
    ours = operators.create("gla", WIDTH, shell="published", heads=heads, orders=["row"])
    low_rank, decay = theirs.gk_proj
    fill(
        ours,
        named(
            shell__in_proj=joined(of(theirs.v_proj), of(theirs.g_proj)),
            shell__norm=of(theirs.g_norm_swish_gate),
            shell__out_proj=of(theirs.o_proj),
            core__branches__0__query_key=joined(of(theirs.q_proj), of(theirs.k_proj)),
            core__branches__0__low_rank=of(low_rank),
            core__branches__0__decay=of(decay),
        ),
    )
    same = pairs(
        ours,
        {
            "shell.norm.weight": theirs.g_norm_swish_gate.weight,
            "core.branches.0.decay.weight": decay.weight,
        },
    )
    for grid in ((5, 7), (4, 6)):
        compare(
            f"gla {grid}",
            ours,
            lambda x: theirs(x.flatten(1, 2))[0].view(x.shape),
            torch.randn(2, *grid, WIDTH),
            same=same,
        )


def test_lightnet() -> None:
    """The whole layer, which is causal, at its last token; the tokens are turned until each has been the last.

    Without the scale of queries that its norm undoes.
    """
    fla, heads = Fla(), 2

    def recurrence(*, q: Tensor, k: Tensor, v: Tensor, gk: Tensor, **_: Any) -> Any:
        return fla.recurrence(q * q.shape[-1] ** 0.5, k, v, gk)

    theirs = fla.layer("lightnet", recurrence).LightNetAttention(
        hidden_size=WIDTH, num_heads=heads, expand_ratio=6, gate_low_rank_dim=128
    )
    randomised(theirs)
    ours = operators.create("lightnet", WIDTH, shell="published", heads=heads, key_width=6)
    down, up = theirs.g_proj
    fill(
        ours,
        named(
            shell__in_proj=joined(of(theirs.v_proj), of(down)),
            shell__gate_proj=of(up),
            shell__norm=of(theirs.g_norm),
            shell__out_proj=of(theirs.o_proj),
            core__qk=joined(of(theirs.q_proj), of(theirs.k_proj)),
        ),
    )

    def layer(x: Tensor) -> Tensor:
        tokens = x.flatten(1, 2)
        turned = torch.stack([tokens.roll(-1 - token, 1) for token in range(tokens.shape[1])], 1)
        mixed, *_ = theirs(turned.flatten(0, 1))
        return mixed[:, -1].view(x.shape)

    same = pairs(ours, {"shell.norm.weight": theirs.g_norm.weight, "shell.out_proj.weight": theirs.o_proj.weight})
    for grid in ((3, 5), (4, 4)):
        compare(f"lightnet {grid}", ours, layer, torch.randn(2, *grid, WIDTH), same=same)
