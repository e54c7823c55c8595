"""Arrows from delta rules."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from operators.linear.decayed import decayed
from operators.testing.checks import assert_close
from tests.operators.mixers.drawn import image, make


@torch.no_grad()
def nothing_is_erased_under_orthonormal_keys(name: str) -> None:
    """A rule of orthonormal keys is causal linear attention with values β v and the rule's decay."""
    mixer = make(name, 12, heads=1, orders=["row"])
    keys = mixer.core.branches[0].query_key.weight[12:]
    keys.copy_(2.0**30 * torch.eye(12))
    x, u = torch.eye(12).double().view(1, 3, 4, 12), image(3, 4, width=12, batch=1)
    q, k, v, beta, log_decay = mixer.core.written(u, x)
    assert torch.equal(k[0, :, 0], x[0].flatten(0, 1))
    log_decay = torch.zeros_like(beta) if log_decay is None else log_decay
    expected = decayed(q, k, beta[..., None] * v, log_decay, backend="chunked")
    assert_close(mixer.core(u, x=x), expected.view_as(u), 1e-13, "y")


ARROWS: list[tuple[str, Callable[[], None]]] = [
    (f"{name}, orthonormal keys -> {what}", partial(nothing_is_erased_under_orthonormal_keys, name))
    for name, what in (
        ("deltanet", "causal linear attention"),
        ("gated_deltanet", "decayed, per head"),
        ("kda", "decayed, per channel"),
    )
]
