"""A selective scan that leaves tokens out, while these still fade its state."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.errors import InputError
from operators.scan import selective_scan


def pruned_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    kept: Tensor,
    D: Tensor | None = None,
    *,
    reverse: bool = False,
    backend: str = "auto",
) -> Tensor:
    """The outputs (B, D, K) at the tokens `kept` of a scan that reads these alone.

    Between two of them the state fades as if those left out were read as zeros (hidden-state alignment, arXiv
    2409.18962). The scan takes K steps: a token's step is the sum of its own and of those left out before it, and its
    input makes up for that.

    Args:
        u: (B, D, N).
        delta: steps (B, D, N), positive.
        A: (D, S).
        B: (B, S, N).
        C: (B, S, N).
        kept: (B, K), places of tokens in ascending order, at least one.
        D: (D).
        reverse: scan from the last token to the first.
        backend: of `operators.scan.selective_scan`.

    Raises:
        InputError: places that do not ascend or are none of the sequence; and as `selective_scan`.
    """
    length = u.shape[-1]
    if kept.ndim != 2 or kept.shape[1] < 1 or kept.min() < 0 or kept.max() >= length or (kept.diff(dim=1) <= 0).any():
        raise InputError(f"kept must hold places (B, K) from 0 to {length - 1} in ascending order, K at least 1")
    at = kept[:, None].expand(-1, u.shape[1], -1)
    at_maps = kept[:, None].expand(-1, B.shape[1], -1)
    value, own = u.gather(2, at), delta.gather(2, at)
    elapsed = (delta.flip(2).cumsum(2).flip(2) if reverse else delta.cumsum(2)).gather(2, at)
    since = elapsed.diff(dim=2).abs()
    step = torch.cat([since, elapsed[..., -1:]] if reverse else [elapsed[..., :1], since], dim=2)
    y = selective_scan(
        value * own / step, step, A, B.gather(2, at_maps), C.gather(2, at_maps), reverse=reverse, backend=backend
    )
    assert isinstance(y, Tensor)
    return y if D is None else y + D[:, None] * value
