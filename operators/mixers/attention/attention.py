"""Multi-head softmax attention on a grid, with optional QK normalisation and 2-D rotary positions.

For each head of width d (arXiv 1706.03762, equation 1)

    q, k = W_qk x,   v = u,   y = softmax(q kᵀ / √d) v

Only the backend `reference` and `inspect` store an N × N map.
"""

from __future__ import annotations

import importlib
import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import MixerCard, Published, Site
from operators.cost import Cost
from operators.errors import InputError, check_choice
from operators.initialisation import linear_init
from operators.mixer import Core
from operators.mixers.heads import HEAD_WIDTH, check_heads, default_heads, divisors, rope_angles, rotate
from operators.registry import register
from operators.runtime.differentiation import forward_mode
from operators.runtime.tensors import ordinary_tensors
from operators.runtime.tracing import constant
from operators.shell.spec import ShellSpec


@lru_cache
def _xformers_trial(device: torch.device, dtype: torch.dtype, head_width: int, deterministic: bool) -> str | None:
    """Why xformers refuses such a call, or None. `deterministic` is there for the cache: xformers heeds torch's switch.

    Tried on eight zero tokens rather than read off a table: kernels, types and widths differ between its builds.
    """
    try:
        ops = importlib.import_module("xformers.ops")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # a binary that does not fit fails in any way
        return f"it does not import ({' '.join(str(error).split())})"
    with ordinary_tensors(), torch.enable_grad():
        q = torch.zeros(1, 8, 1, head_width, device=device, dtype=dtype, requires_grad=True)
        try:
            ops.memory_efficient_attention(q, q, q).sum().backward()
        except (RuntimeError, TypeError, AttributeError) as error:
            # Includes NotImplementedError, by which xformers says that no kernel fits or that it was built without.
            return " ".join(str(error).split())
    return None


@constant
def xformers_refusal(device: torch.device, dtype: torch.dtype, head_width: int) -> str | None:
    """Why xformers cannot serve tensors of that device, type and head width, or None if it can.

    The package is imported only for CUDA tensors.
    """
    if device.type != "cuda":
        return f"it serves CUDA tensors only, and these are on {device.type}"
    return _xformers_trial(device, dtype, head_width, torch.are_deterministic_algorithms_enabled())


def attention_map(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d), (B, heads, N, M), from q (B, N, heads, d) and k (B, M, heads, d), `mask` (B, M) as given."""
    logits = torch.einsum("bnhd,bmhd->bhnm", q, k) / q.shape[-1] ** 0.5
    if mask is not None:
        logits = logits.masked_fill(~mask[:, None, None], -torch.inf)
    return logits.softmax(dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, backend: str, mask: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d) v for q (B, N, heads, d) and k, v (B, M, heads, d), served by `backend`.

    `mask` (B, M) says which keys are there; xformers takes none.
    """
    if backend == "xformers":
        return importlib.import_module("xformers.ops").memory_efficient_attention(q, k, v)
    if backend == "sdpa":
        there = None if mask is None else mask[:, None, None]
        q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=there).transpose(1, 2)
    return torch.einsum("bhnm,bmhd->bnhd", attention_map(q, k, mask).to(v.dtype), v)


_DEIT = "facebookresearch/deit README_deit.md"
_DIT = "facebookresearch/DiT README.md"


@register(
    MixerCard(
        name="attention",
        family="attention",
        title="Softmax attention",
        source="arXiv 1706.03762, equation 1; shell of DeiT, arXiv 2012.12877",
        year=2017,
        equation="y = softmax(q kᵀ / √d) v per head, q, k = W x + b, v = u",
        code="none needed: torch's scaled_dot_product_attention serves it, and equals the definition",
        position_aware=False,
        permutation_equivariant=True,
        translation_equivariant="circular",
        linear=False,
        axes=(2, 3),
        reads_context=True,
        backends=("xformers", "sdpa", "reference"),
        shells={"published": ShellSpec(gate="none", norm="none", bias=True)},
        published=(
            Published("DeiT-Ti", "ImageNet-1k top-1 %, 224 px", 72.2, _DEIT),
            Published("DeiT-S", "ImageNet-1k top-1 %, 224 px", 79.9, _DEIT),
            Published("DeiT-B", "ImageNet-1k top-1 %, 224 px", 81.8, _DEIT),
            Published("DiT-XL/2", "ImageNet 256 px FID-50K, guided", 2.27, _DIT),
            Published("DiT-XL/2", "ImageNet 512 px FID-50K, guided", 3.04, _DIT),
        ),
    )
)
class Attention(Core):
    """Softmax attention over all tokens; q and k come from the mixer's input x, the values are the field u.

    Args:
        site: where the core stands.
        backend: `xformers` (CUDA only), `sdpa`, `reference` (stores the N × N map), or `auto`: xformers where it can
            serve the call, `sdpa` otherwise (`reference` in forward-mode differentiation).
        heads: number of heads; None for `default_heads`.
        qk_norm: LayerNorm without bias over each head's q and k (ViT-22B, arXiv 2302.05442, section 2).
        rope: rotary positions along each axis, see `rope_angles`; needs a head width divisible by 4 (videos: 6).
        bias: whether the maps q and k have a bias.

    Raises:
        InputError: heads that do not divide the width, or a head width that cannot be rotated.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str = "auto",
        heads: int | None = None,
        qk_norm: bool = False,
        rope: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__(site, backend=backend)
        check_choice("mixer.qk_norm", qk_norm, (True, False))
        check_choice("mixer.rope", rope, (True, False))
        check_choice("mixer.bias", bias, (True, False))
        self.heads = default_heads(site.width) if heads is None else heads
        check_heads(self.heads, site.width)
        self.value_heads = self.heads
        self.head_width = site.width // self.heads
        pairs = 2 * site.axes
        if rope and self.head_width % pairs:
            fitting = [str(h) for h in divisors(site.width) if site.width // h % pairs == 0]
            raise InputError(
                f"mixer.rope=True needs a head width divisible by {pairs}, not {self.head_width}; "
                f"heads that give one at width {site.width}: {', '.join(fitting) or 'none'}"
            )
        self.rope = rope
        self.qk = nn.Linear(site.dim, 2 * site.width, bias=bias)
        linear_init(self.qk)
        self.q_norm: nn.Module = nn.LayerNorm(self.head_width, eps=1e-6, bias=False) if qk_norm else nn.Identity()
        self.k_norm: nn.Module = nn.LayerNorm(self.head_width, eps=1e-6, bias=False) if qk_norm else nn.Identity()
        self._last_dtype: torch.dtype | None = None

    @property
    def permutation_equivariant(self) -> bool:
        """Not with rotary positions."""
        return not self.rope

    @classmethod
    def availability(cls) -> dict[str, str | None]:
        """For each backend None, or the reason why it cannot serve here; xformers is judged by float16 heads of 64."""
        reason: str | None = "it serves CUDA tensors only, and there is no CUDA device"
        if torch.cuda.is_available():
            reason = xformers_refusal(torch.device("cuda"), torch.float16, HEAD_WIDTH)
        return {"xformers": reason, "sdpa": None, "reference": None}

    @property
    def backend(self) -> str:
        """The backend that serves on the parameters' device, in the type of the last call's q.

        Before the first call the parameters' type stands in; under mixed precision that is not the type of q, and
        xformers heeds it.
        """
        if self.requested_backend != "auto":
            return self.requested_backend
        weight = self.qk.weight
        return self._serving(weight.device, self._last_dtype or weight.dtype)

    def _serving(self, device: torch.device, dtype: torch.dtype) -> str:
        if forward_mode() and self.requested_backend != "reference":
            if self.requested_backend == "auto":
                return "reference"
            raise InputError(
                f"mixer.backend={self.requested_backend!r} has no forward-mode derivatives; use auto or reference"
            )
        if self.requested_backend in ("sdpa", "reference"):
            return self.requested_backend
        refusal = xformers_refusal(device, dtype, self.head_width)
        if refusal is None:
            return "xformers"
        if self.requested_backend == "auto":
            return "sdpa"
        raise InputError(f"mixer.backend='xformers' cannot serve this call: {refusal}; use auto, sdpa or reference")

    def queries_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps q and k (B, N, heads, d), normalised and rotated where asked for, from x (B, H, W, C)."""
        batch, *grid, _ = x.shape
        projected = self.qk(x)
        q, k = projected.view(batch, math.prod(grid), 2, self.heads, self.head_width).unbind(2)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rope:
            # Angles need more digits than half precision has.
            dtype = torch.promote_types(projected.dtype, torch.float32)
            angles = rope_angles(*grid, head_width=self.head_width, device=x.device, dtype=dtype)
            q, k = rotate(q, angles), rotate(k, angles)
        return q.to(projected.dtype), k.to(projected.dtype)

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Attended values (B, H, W, D) in the type of q (under autocast: its type).

        Raises:
            InputError: the backend asked for cannot serve these tensors; says why.
        """
        q, k = self.queries_keys(x)
        self._last_dtype = q.dtype
        v = u.to(q.dtype).reshape(q.shape)
        return attend(q, k, v, self._serving(q.device, q.dtype)).reshape(u.shape)

    def read(
        self, u: Tensor, *, x: Tensor, context: Tensor, mask: Tensor | None = None, cond: Tensor | None = None
    ) -> Tensor:
        """Attended values (B, H, W, D): cross-attention with queries of x, and keys and values of the context.

        Raises:
            InputError: rotary positions, which tokens of a context have none of; or a backend that cannot serve.
        """
        if self.rope:
            raise InputError(
                "mixer.rope=True turns tokens by their place on the grid, and those of a context have none"
            )
        weight_q, weight_k = self.qk.weight.chunk(2)
        bias_q, bias_k = (None, None) if self.qk.bias is None else self.qk.bias.chunk(2)
        q = F.linear(x.flatten(1, -2), weight_q, bias_q).unflatten(-1, (self.heads, self.head_width))
        k = F.linear(context, weight_k, bias_k).unflatten(-1, (self.heads, self.head_width))
        dtype = self._last_dtype = q.dtype
        q, k = self.q_norm(q).to(dtype), self.k_norm(k).to(dtype)
        serving = self._serving(q.device, dtype)
        if serving == "xformers" and mask is not None:
            if self.requested_backend == "xformers":
                raise InputError("mixer.backend='xformers' cannot serve this call: it has a mask; use auto or sdpa")
            serving = "sdpa"
        return attend(q, k, u.to(dtype).reshape(k.shape), serving, mask).reshape(*x.shape[:-1], self.site.width)

    def read_cost(self, height: int, width: int, tokens: int) -> Cost:
        """Queries NCD, keys MCD; scores and weighted sum: NMD each; keys and values: 2MD."""
        queries = height * width
        return Cost(
            projection_macs=(queries + tokens) * self.site.dim * self.site.width,
            mixing_macs=2 * queries * tokens * self.site.width,
            state_elements=2 * tokens * self.site.width,
        )

    def core_cost(self, height: int, width: int) -> Cost:
        """Maps q and k: 2NCD; scores and weighted sum: N²D each; keys and values: 2ND."""
        tokens = height * width
        return Cost(
            projection_macs=2 * tokens * self.site.dim * self.site.width,
            mixing_macs=2 * tokens**2 * self.site.width,
            state_elements=2 * tokens * self.site.width,
        )

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`map` (B, heads, N, N), rows summing to one, and the `q`, `k` (B, heads, N, d) it comes from."""
        q, k = self.queries_keys(x)
        return {"map": attention_map(q, k), "q": q.transpose(1, 2), "k": k.transpose(1, 2)}
