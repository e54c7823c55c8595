"""Products of tokens of a chunk through what decays between them, one decay for each token and key channel.

For rows r_t (queries, or keys that erase), columns k_s and decays a, of K channels each, within a chunk of T tokens

    products:  r_tᵀ diag(a_{s+1} ⋯ a_t) k_s for s <= t, else 0      (a row's own token counts without decay)
    reading:   r_t a_1 ⋯ a_t,   leaving: k_s a_{s+1} ⋯ a_T,   total: a_1 ⋯ a_T

or, in reverse, the same from the last token to the first. Blocks of 1, 2, 4 … tokens are compared in pairs: the decay
between a token of the block that reads and one of the block that is read is the product of that since where the two
meet and that until there. All factors are at most 1: nothing overflows, and nothing is divided by.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from operators.runtime.differentiation import by_autograd, through

Compared = tuple[Tensor, Tensor, Tensor, Tensor]


def compare(rows: Tensor, columns: Tensor, log_decay: Tensor, reverse: bool = False) -> Compared:
    """`products` (M, T, R, T), `reading` (M, T, R, K), `leaving` (M, T, K) and `total` (M, K) of M chunks.

    Args:
        rows: (M, T, R, K), R rows for each token; T is a power of two.
        columns: (M, T, K).
        log_decay: log a (M, T, K), at most 0 and finite.
        reverse: whether the last token comes first.
    """
    if by_autograd():
        return compare_plain(rows, columns, log_decay, reverse)
    products, reading, leaving, total = _Compared.apply(rows, columns, log_decay, reverse)
    return products, reading, leaving, total


def compare_plain(rows: Tensor, columns: Tensor, log_decay: Tensor, reverse: bool = False) -> Compared:
    """As `compare`, differentiated by autograd."""
    # All with blocks in front of their tokens: (M, blocks, T of a block, …).
    decay = log_decay.exp()
    reading, leaving, total = (rows * decay[:, :, None])[:, :, None], columns[:, :, None], decay
    products = (rows * columns[:, :, None]).sum(-1)[:, :, None, :, None]
    while products.shape[1] > 1:
        (read1, read2), (left1, left2), (total1, total2), (own1, own2) = (
            t.unflatten(1, (-1, 2)).unbind(2) for t in (reading, leaving, total, products)
        )
        readers, sources = (read1, left2) if reverse else (read2, left1)
        across = (readers.flatten(2, 3) @ sources.mT).unflatten(2, readers.shape[2:4])
        nothing = torch.zeros_like(across)
        first, second = ([own1, across], [nothing, own2]) if reverse else ([own1, nothing], [across, own2])
        products = torch.cat([torch.cat(first, -1), torch.cat(second, -1)], 2)
        if reverse:
            read1, left2 = read1 * total2[:, :, None, None], left2 * total1[:, :, None]
        else:
            read2, left1 = read2 * total1[:, :, None, None], left1 * total2[:, :, None]
        reading, leaving, total = torch.cat([read1, read2], 2), torch.cat([left1, left2], 2), total1 * total2
    return products[:, 0], reading[:, 0], leaving[:, 0], total[:, 0]


class _Compared(torch.autograd.Function):
    """`compare_plain` in place: what reads and what is read are multiplied where they lie, half of them at each size.

    The gradient takes the same steps backwards.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor, log_decay: Tensor, reverse: bool) -> Compared:
        total = decay = log_decay.exp()
        reading = rows * decay[:, :, None]
        leaving = columns.clone(memory_format=torch.contiguous_format)
        products = rows.new_zeros(*rows.shape[:3], rows.shape[1])
        _diagonal(products).copy_((rows * columns[:, :, None]).sum(-1))
        steps: list[Tensor] = []
        while total.shape[1] > 1:
            readers, sources = _halves(reading, leaving, total.shape[1], reverse)
            since, until = _meeting(total, reverse)
            before = readers.clone(memory_format=torch.contiguous_format)
            left = sources.clone(memory_format=torch.contiguous_format)
            _across(products, total.shape[1], reverse).copy_((before @ left.mT).view(_across_shape(products, total)))
            readers.mul_(since)
            sources.mul_(until)
            steps += [before, left, total]
            total = (since * until)[:, :, 0]
        ctx.reverse = reverse
        ctx.save_for_backward(rows, columns, log_decay, decay, *steps)
        return products, reading, leaving, total[:, 0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns, log_decay, decay, *steps = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives
            return *through(compare_plain, (rows, columns, log_decay), (ctx.reverse,), gradients), None
        products = gradients[0]
        reading, leaving = (t.clone(memory_format=torch.contiguous_format) for t in gradients[1:3])
        last = gradients[3][:, None]
        while steps:
            *steps, before, left, total = steps
            readers, sources = (t.flatten(0, 1) for t in _halves(reading, leaving, total.shape[1], ctx.reverse))
            before, left = before.flatten(0, 1), left.flatten(0, 1)
            since, until = _meeting(total, ctx.reverse)
            of_since = torch.linalg.vecdot(readers, before, dim=1).view_as(last) + last * until[:, :, 0]
            of_until = torch.linalg.vecdot(sources, left, dim=1).view_as(last) + last * since[:, :, 0]
            pair = (of_until, of_since) if ctx.reverse else (of_since, of_until)
            across = _across(products, total.shape[1], ctx.reverse).reshape(len(before), before.shape[1], left.shape[1])
            # In two pieces of memory: batched products take strided matrices one by one.
            readers.copy_((readers * since.flatten(0, 1)).baddbmm_(across, left))
            sources.copy_((sources * until.flatten(0, 1)).baddbmm_(across.mT, before))
            last = torch.stack(pair, 2).flatten(1, 2)
        own = _diagonal(products)[..., None]
        of_decay = last + (reading * rows).sum(2)
        of_rows = torch.addcmul(reading * decay[:, :, None], own, columns[:, :, None])
        return of_rows, leaving + (own * rows).sum(2), of_decay * decay, None


def _diagonal(products: Tensor) -> Tensor:
    """Each token's own products, (M, T, R), of (M, T, R, T)."""
    return products.diagonal(dim1=1, dim2=3).mT


def _halves(reading: Tensor, leaving: Tensor, blocks: int, reverse: bool) -> tuple[Tensor, Tensor]:
    """Of each pair of neighbouring blocks what reads, (M, pairs, T R, K), and what is read, (M, pairs, T, K)."""
    reader = 0 if reverse else 1
    readers = reading.flatten(1, 2).unflatten(1, (blocks // 2, 2, -1))[:, :, reader]
    return readers, leaving.unflatten(1, (blocks // 2, 2, -1))[:, :, 1 - reader]


def _meeting(total: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """Of each pair of blocks what passes through the one that is read, and through the other, (M, pairs, 1, K)."""
    first, second = total[:, :, None].unflatten(1, (-1, 2)).unbind(2)
    return (second, first) if reverse else (first, second)


def _across(products: Tensor, blocks: int, reverse: bool) -> Tensor:
    """Where the products across each pair of blocks lie, (M, pairs, T, R, T)."""
    reader = 0 if reverse else 1
    halves = products.unflatten(3, (blocks // 2, 2, -1)).unflatten(1, (blocks // 2, 2, -1))
    return halves[:, :, reader, :, :, :, 1 - reader].diagonal(dim1=1, dim2=4).movedim(-1, 1)


def _across_shape(products: Tensor, total: Tensor) -> tuple[int, ...]:
    blocks = total.shape[1]
    size = products.shape[1] // blocks
    return (len(products), blocks // 2, size, products.shape[2], size)
