"""timm's ViT and the authors' DiT once more, as plain functions of weights by name, and small random weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

State = dict[str, Tensor]


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def normed(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def attention(state: State, name: str, x: Tensor, heads: int) -> Tensor:
    batch, number, dim = x.shape
    q, k, v = linear(state, f"{name}.qkv", x).split(dim, dim=-1)
    q, k, v = (part.reshape(batch, number, heads, dim // heads).transpose(1, 2) for part in (q, k, v))
    scores = (q @ k.transpose(-1, -2)) / math.sqrt(dim // heads)
    mixed = scores.exp() / scores.exp().sum(-1, keepdim=True) @ v
    return linear(state, f"{name}.proj", mixed.transpose(1, 2).reshape(batch, number, dim))


def patches(state: State, name: str, images: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    side = weight.shape[-1]
    cut = images.unfold(2, side, side).unfold(3, side, side)  # (B, channels, h, w, side, side)
    tokens = torch.einsum("bchwij,dcij->bhwd", cut, weight) + state[f"{name}.bias"]
    return tokens.flatten(1, 2)


def erf_gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def tanh_gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def vit(state: State, images: Tensor, heads: int, depth: int) -> Tensor:
    """Logits of timm's ViT: of the class token if there is one, else of the mean."""
    x = patches(state, "patch_embed.proj", images)
    if "cls_token" in state:
        whole = state["pos_embed"].shape[1] == x.shape[1] + 1
        x = x if whole else x + state["pos_embed"]
        x = torch.cat([state["cls_token"].expand(len(x), 1, -1), x], dim=1)
        x = x + state["pos_embed"] if whole else x
    else:
        x = x + state["pos_embed"]
    for block in (f"blocks.{i}" for i in range(depth)):
        for number, branch in (("1", "attn"), ("2", "mlp")):
            y = normed(x) * state[f"{block}.norm{number}.weight"] + state[f"{block}.norm{number}.bias"]
            if branch == "attn":
                y = attention(state, f"{block}.attn", y, heads)
            else:
                y = linear(state, f"{block}.mlp.fc2", erf_gelu(linear(state, f"{block}.mlp.fc1", y)))
            x = x + y * state.get(f"{block}.ls{number}.gamma", torch.ones((), dtype=y.dtype))
    x = normed(x) * state["norm.weight"] + state["norm.bias"]
    return linear(state, "head", x[:, 0] if "cls_token" in state else x.mean(1))


def dit(state: State, x: Tensor, step: Tensor, label: Tensor, heads: int, depth: int) -> Tensor:
    """All output channels (B, 2 C, H, W) of DiT and SiT at a step or time."""
    side, (batch, _, height, width) = state["x_embedder.proj.weight"].shape[-1], x.shape
    silu = torch.nn.functional.silu
    frequencies = torch.tensor([10000 ** (-k / 128) for k in range(128)], dtype=x.dtype)
    angles = step[:, None] * frequencies
    waves = torch.cat([angles.cos(), angles.sin()], 1)
    c = linear(state, "t_embedder.mlp.2", silu(linear(state, "t_embedder.mlp.0", waves)))
    c = c + state["y_embedder.embedding_table.weight"][label]
    h = patches(state, "x_embedder.proj", x) + state["pos_embed"]
    for block in (f"blocks.{i}" for i in range(depth)):
        parts = linear(state, f"{block}.adaLN_modulation.1", silu(c))[:, None].chunk(6, dim=-1)
        h = h + parts[2] * attention(state, f"{block}.attn", normed(h) * (1 + parts[1]) + parts[0], heads)
        y = linear(state, f"{block}.mlp.fc1", normed(h) * (1 + parts[4]) + parts[3])
        h = h + parts[5] * linear(state, f"{block}.mlp.fc2", tanh_gelu(y))
    shift, scale = linear(state, "final_layer.adaLN_modulation.1", silu(c))[:, None].chunk(2, dim=-1)
    out = linear(state, "final_layer.linear", normed(h) * (1 + scale) + shift)
    out = out.reshape(batch, height // side, width // side, side, side, -1)
    return out.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, height, width)


def blocks(dim: int, depth: int, hidden: int, norms: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for block in (f"blocks.{i}" for i in range(depth)):
        shapes |= {f"{block}.attn.qkv.weight": (3 * dim, dim), f"{block}.attn.qkv.bias": (3 * dim,)}
        shapes |= {f"{block}.attn.proj.weight": (dim, dim), f"{block}.attn.proj.bias": (dim,)}
        shapes |= {f"{block}.mlp.fc1.weight": (hidden, dim), f"{block}.mlp.fc1.bias": (hidden,)}
        shapes |= {f"{block}.mlp.fc2.weight": (dim, hidden), f"{block}.mlp.fc2.bias": (dim,)}
        if norms:
            shapes |= {f"{block}.norm{i}.{part}": (dim,) for i in (1, 2) for part in ("weight", "bias")}
        else:
            shapes |= {
                f"{block}.adaLN_modulation.1.weight": (6 * dim, dim),
                f"{block}.adaLN_modulation.1.bias": (6 * dim,),
            }
    return shapes


def drawn(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
    """Float32 numbers of a size at which every part matters."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * (0.3 if len(shape) < 2 else shape[-1] ** -0.5)
        for name, shape in shapes.items()
    }


def vit_state(
    dim: int = 24,
    depth: int = 2,
    patch: int = 4,
    tokens: int = 6,
    channels: int = 3,
    classes: int = 5,
    hidden: int = 40,
) -> State:
    return drawn(
        {
            "cls_token": (1, 1, dim),
            "pos_embed": (1, tokens + 1, dim),
            "patch_embed.proj.weight": (dim, channels, patch, patch),
            "patch_embed.proj.bias": (dim,),
            **blocks(dim, depth, hidden, norms=True),
            "norm.weight": (dim,),
            "norm.bias": (dim,),
            "head.weight": (classes, dim),
            "head.bias": (classes,),
        }
    )


def dit_state(
    dim: int = 24,
    depth: int = 2,
    patch: int = 2,
    tokens: int = 6,
    channels: int = 3,
    classes: int = 5,
    *,
    sigma: bool = True,
) -> State:
    outputs = patch**2 * channels * (1 + sigma)
    return drawn(
        {
            "pos_embed": (1, tokens, dim),
            "x_embedder.proj.weight": (dim, channels, patch, patch),
            "x_embedder.proj.bias": (dim,),
            "t_embedder.mlp.0.weight": (dim, 256),
            "t_embedder.mlp.0.bias": (dim,),
            "t_embedder.mlp.2.weight": (dim, dim),
            "t_embedder.mlp.2.bias": (dim,),
            "y_embedder.embedding_table.weight": (classes + 1, dim),
            **blocks(dim, depth, 4 * dim, norms=False),
            "final_layer.linear.weight": (outputs, dim),
            "final_layer.linear.bias": (outputs,),
            "final_layer.adaLN_modulation.1.weight": (2 * dim, dim),
            "final_layer.adaLN_modulation.1.bias": (2 * dim,),
        }
    )
