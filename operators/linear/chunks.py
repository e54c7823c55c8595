"""What passes from chunk to chunk of a decayed recurrence, and the weights of tokens within one.

Each is an operation with a gradient of its own, which saves passes over memory, beside the same by autograd.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from operators.runtime.differentiation import by_autograd, through


def between(q: Tensor, k: Tensor, v: Tensor, kept: Tensor, reverse: bool = False) -> Tensor:
    """What the tokens of each chunk read of the state that enters it, (chunks, …, T, V).

    The state that leaves chunk i is S_i = kept_i S_{i−1} + k_iᵀ v_i, from S = 0.

    Args:
        q: (chunks, …, T, K), times what is kept from entering the chunk (or that is left to the caller).
        k: (chunks, …, T, K), or v (chunks, …, T, V), times what is kept until leaving the chunk.
        v: see k.
        kept: (chunks, …, K or 1, V or 1), what a chunk keeps of the state that enters it.
        reverse: whether the last chunk comes first.
    """
    if by_autograd():
        return between_plain(q, k, v, kept, reverse)
    read: Tensor = _Between.apply(q, k, v, kept, reverse)
    return read


def between_plain(q: Tensor, k: Tensor, v: Tensor, kept: Tensor, reverse: bool = False) -> Tensor:
    """As `between`, differentiated by autograd."""
    state: Tensor | None = None
    read = []
    for index in _in_order(len(q), reverse):
        added = k[index].mT @ v[index]
        read.append(q[index] @ (torch.zeros_like(added) if state is None else state))
        state = added if state is None else torch.addcmul(added, kept[index], state)
    return torch.stack(read[::-1] if reverse else read)


class _Between(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, kept: Tensor, reverse: bool) -> Tensor:
        sources, readers = _neighbours(reverse)
        states = k[sources].mT @ v[sources]
        # States are numbered as the chunks that they leave.
        passing = kept[sources]
        for before, index in pairwise(_in_order(len(states), reverse)):
            states[index].addcmul_(passing[index], states[before])
        read = q.new_zeros(*q.shape[:-1], v.shape[-1])
        read[readers] = q[readers] @ states
        ctx.reverse = reverse
        ctx.save_for_backward(q, k, v, kept, states)
        return read

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, kept, states = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives
            return *through(between_plain, (q, k, v, kept), (ctx.reverse,), (gradient,)), None
        sources, readers = _neighbours(ctx.reverse)
        passing = kept[sources]
        total = q[readers].mT @ gradient[readers]  # the gradients of the states
        order = _in_order(len(states), ctx.reverse)
        for after, index in pairwise(order[::-1]):
            total[index].addcmul_(passing[after], total[after])
        of_q, of_k, of_v, of_kept = (torch.zeros_like(t) for t in (q, k, v, kept))
        of_q[readers] = gradient[readers] @ states.mT
        of_k[sources] = v[sources] @ total.mT
        of_v[sources] = k[sources] @ total
        if len(states) > 1:
            later, earlier = _neighbours(not ctx.reverse)
            of_kept[sources][later] = (total[later] * states[earlier]).sum_to_size(passing[later].shape)
        return of_q, of_k, of_v, of_kept, None


def _neighbours(reverse: bool) -> tuple[slice, slice]:
    """The chunks that others read, and those that read them."""
    first, rest = slice(None, -1), slice(1, None)
    return (rest, first) if reverse else (first, rest)


def _in_order(count: int, reverse: bool) -> list[int]:
    return list(range(count))[::-1] if reverse else list(range(count))


def weigh(scores: Tensor, ahead: Tensor | None, back: Tensor | None, own: Tensor | None = None) -> Tensor:
    """Scores times what token t keeps of token s: exp(c_t − c_s) for s <= t ahead, exp(b_s − b_t) for s >= t back.

    With one of both, zero elsewhere. Differences are formed so that they keep the digits of the scores' type, however
    large the sums.

    Args:
        scores: (…, G, T, T), of groups that serve several heads each.
        ahead: the sums c (…, H, T) in float64, each from its token's first to it; decreasing along T.
        back: the sums b (…, H, T), each of the tokens before it.
        own: (…, H, T), in place of 1 what a token keeps of itself.

    Returns:
        (…, H, T, T).
    """
    if by_autograd():
        return weigh_plain(scores, ahead, back, own)
    made: Tensor = _Weighed.apply(scores, ahead, back, own)
    return made


def weigh_plain(scores: Tensor, ahead: Tensor | None, back: Tensor | None, own: Tensor | None = None) -> Tensor:
    """As `weigh`, differentiated by autograd."""
    unread = torch.full_like(scores[(0,) * (scores.ndim - 2)], -torch.inf)
    sums = []
    if ahead is not None:
        sums.append(ahead[..., :, None] - ahead[..., None, :] + unread.triu(1))
    if back is not None:
        sums.append(back[..., None, :] - back[..., :, None] + unread.tril(-1))
    # Where both read, at s = t, both are 0.
    kept = (sums[0] if len(sums) == 1 else torch.maximum(*sums)).to(scores.dtype).exp()
    if own is not None:
        kept = kept + (own - 1)[..., None] * torch.eye(own.shape[-1], dtype=own.dtype, device=own.device)
    share = kept.shape[-3] // scores.shape[-3]
    return (kept.unflatten(-3, (-1, share)) * scores[..., None, :, :]).flatten(-4, -3)


class _Weighed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, ahead: Tensor | None, back: Tensor | None, own: Tensor | None) -> Tensor:
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
        if own is not None:
            kept.diagonal(dim1=-2, dim2=-1).copy_(own)
        ctx.save_for_backward(scores, ahead, back, own, kept)
        return _by_group(kept, scores).mul(scores[..., None, :, :]).flatten(-4, -3)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scores, ahead, back, own, kept = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives
            return through(weigh_plain, (scores, ahead, back, own), (), (gradient,))
        of_own = None
        if own is not None:
            of_token = _by_group(gradient, scores).diagonal(dim1=-2, dim2=-1)
            of_own = (of_token * scores.diagonal(dim1=-2, dim2=-1)[..., None, :]).flatten(-3, -2)
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
        return of_scores.sum(-3), of_ahead, of_back, of_own


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
