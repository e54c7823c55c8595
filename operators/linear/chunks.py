"""What passes from chunk to chunk of a decayed recurrence, and the weights of tokens within one.

Each is an operation with a gradient of its own, which saves passes over memory, beside the same by autograd.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from operators.runtime.differentiation import through, transformed


def states(added: Tensor, kept: Tensor, reverse: bool) -> Tensor:
    """S_i = kept_i S_{i−1} + added_i over the second axis, from S = 0; in reverse from its end, S_{i+1} for S_{i−1}.

    Args:
        added: (B, chunks, …).
        kept: broadcast to the same shape.
        reverse: whether the last chunk comes first.
    """
    if transformed():
        return states_plain(added, kept, reverse)
    made: Tensor = _States.apply(added, kept, reverse)
    return made


def states_plain(added: Tensor, kept: Tensor, reverse: bool) -> Tensor:
    """As `states`, differentiated by autograd."""
    made: list[Tensor] = []
    for index in _in_order(added.shape[1], reverse):
        made.append(torch.addcmul(added[:, index], kept[:, index], made[-1]) if made else added[:, index])
    return torch.stack(made[::-1] if reverse else made, 1)


class _States(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, added: Tensor, kept: Tensor, reverse: bool) -> Tensor:
        made = added.clone(memory_format=torch.contiguous_format)
        order = _in_order(added.shape[1], reverse)
        for before, index in pairwise(order):
            made[:, index].addcmul_(kept[:, index], made[:, before])
        ctx.reverse = reverse
        ctx.save_for_backward(added, kept, made)
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        added, kept, made = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives
            return *through(states_plain, (added, kept), (ctx.reverse,), (gradient,)), None
        total = gradient.clone(memory_format=torch.contiguous_format)
        order = _in_order(added.shape[1], ctx.reverse)[::-1]
        for after, index in pairwise(order):
            total[:, index].addcmul_(kept[:, after], total[:, after])
        later, earlier = (slice(1, None), slice(None, -1))[:: -1 if ctx.reverse else 1]
        of_kept = torch.zeros_like(kept)
        of_kept[:, later] = (total[:, later] * made[:, earlier]).sum_to_size(kept[:, later].shape)
        return total, of_kept, None


def _in_order(count: int, reverse: bool) -> list[int]:
    return list(range(count))[::-1] if reverse else list(range(count))


def weigh(scores: Tensor, ahead: Tensor | None, back: Tensor | None) -> Tensor:
    """Scores times what token t keeps of token s: exp(c_t − c_s) for s <= t ahead, exp(b_s − b_t) for s >= t back.

    With one of both, zero elsewhere. Differences are formed so that they keep the digits of the scores' type, however
    large the sums.

    Args:
        scores: (…, G, T, T), of groups that serve several heads each.
        ahead: the sums c (…, H, T) in float64, each from its token's first to it; decreasing along T.
        back: the sums b (…, H, T), each of the tokens before it.

    Returns:
        (…, H, T, T).
    """
    if transformed():
        return weigh_plain(scores, ahead, back)
    made: Tensor = _Weighed.apply(scores, ahead, back)
    return made


def weigh_plain(scores: Tensor, ahead: Tensor | None, back: Tensor | None) -> Tensor:
    """As `weigh`, differentiated by autograd."""
    unread = torch.full_like(scores[(0,) * (scores.ndim - 2)], -torch.inf)
    sums = []
    if ahead is not None:
        sums.append(ahead[..., :, None] - ahead[..., None, :] + unread.triu(1))
    if back is not None:
        sums.append(back[..., None, :] - back[..., :, None] + unread.tril(-1))
    # Where both read, at s = t, both are 0.
    kept = (sums[0] if len(sums) == 1 else torch.maximum(*sums)).to(scores.dtype).exp()
    share = kept.shape[-3] // scores.shape[-3]
    return (kept.unflatten(-3, (-1, share)) * scores[..., None, :, :]).flatten(-4, -3)


class _Weighed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, ahead: Tensor | None, back: Tensor | None) -> Tensor:
        kept = scores.new_zeros(())
        if ahead is not None:
            kept = _differences(ahead, scores.dtype).tril_()
        if back is not None:
            kept = _differences(back, scores.dtype).neg_().triu_(0 if ahead is None else 1) + kept
        kept.exp_()
        if back is None:
            kept.tril_()
        elif ahead is None:
            kept.triu_()
        ctx.save_for_backward(scores, ahead, back, kept)
        return _by_group(kept, scores).mul(scores[..., None, :, :]).flatten(-4, -3)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scores, ahead, back, kept = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives
            return through(weigh_plain, (scores, ahead, back), (), (gradient,))
        of_scores = _by_group(gradient, scores) * _by_group(kept, scores)
        of_sums = (of_scores * scores[..., None, :, :]).flatten(-4, -3)
        of_sums.diagonal(dim1=-2, dim2=-1).zero_()  # exp(0)
        of_ahead = of_back = None
        if ahead is not None and ctx.needs_input_grad[1]:
            lower = of_sums if back is None else of_sums.tril()
            of_ahead = (lower.sum(-1) - lower.sum(-2)).sum_to_size(ahead.shape).to(ahead.dtype)
        if back is not None and ctx.needs_input_grad[2]:
            upper = of_sums if ahead is None else of_sums.triu()
            of_back = (upper.sum(-2) - upper.sum(-1)).sum_to_size(back.shape).to(back.dtype)
        return of_scores.sum(-3), of_ahead, of_back


def _by_group(of_heads: Tensor, scores: Tensor) -> Tensor:
    """(…, G, H/G, T, T) of (…, H, T, T)."""
    return of_heads.unflatten(-3, (scores.shape[-3], -1))


def _differences(c: Tensor, dtype: torch.dtype) -> Tensor:
    """c_t − c_s, (…, T, T), to the digits of `dtype`: what that cuts off each c is taken off again afterwards."""
    high = c.to(dtype)
    between = high[..., :, None] - high[..., None, :]
    if dtype != c.dtype:
        low = (c - high).to(dtype)
        between.add_(low[..., :, None]).sub_(low[..., None, :])
    return between
