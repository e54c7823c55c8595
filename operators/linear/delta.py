"""The delta rule along a sequence, computed in chunks by products of matrices and one triangular solve.

For each head, with queries and keys of K channels, values of V channels, a decay a_t in [0, 1] (one number, or one per
key channel) and write strengths β, the state S (K × V) fades, and what it holds under a key moves towards a value:

    S ← diag(a_t) S                                  once per token
    S ← S + β k (v − Sᵀ k)ᵀ                          for each write of the token, = (I − β k kᵀ) S + β k vᵀ
    y_t = Sᵀ q_t                                     after the token's last write

One write per token: DeltaNet (arXiv 2406.06484), with decay Gated DeltaNet (2412.06464) and, per channel, Kimi Delta
Attention (2510.26692). Several writes: DeltaProduct (2502.10297). With unit keys I − β k kᵀ has the eigenvalue 1 − β.

Inside a chunk that starts with S_0, let D(t, s) be the product of the decays after write s up to write t. What the
writes add to the state are the outer products of their keys with the rows of U, where (WY form, 2406.06484, section 3)

    (I + diag(β) A) U = diag(β) (V − (D(·, 0) ⊙ K) S_0),   A_ts = k_tᵀ D(t, s) k_s  for s < t, else 0

U is affine in S_0: the two parts are solved for all chunks at once, and only S_0 passes from chunk to chunk. No decay
is ever divided by, nor do sums of logarithms cancel: D is the exponential of differences taken in double precision, or,
per channel, a product of factors of at most 1. Time and memory are linear in the number of tokens. Everything is
computed in at least float32, under autocast too. `operators.linear.delta_reference` has the plain recurrence.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.linear.channels import compare
from operators.precision import full_precision, wide

CHUNK = 64
"""Most writes of a chunk."""
CHANNEL_CHUNK = 32
"""Most tokens of a chunk with decays per channel; a power of two."""


def chunks(tokens: int, writes: int, channel_decay: bool) -> tuple[int, int]:
    """Number and length of the chunks of a sequence, the last one padded.

    As equal as can be; with decays per channel the length is a power of two.
    """
    if channel_decay:
        length = min(CHANNEL_CHUNK, 1 << (tokens - 1).bit_length())
        return ceil(tokens / length), length
    count = ceil(tokens * writes / CHUNK)
    return count, ceil(tokens / count)


def delta_macs(
    tokens: int,
    heads: int,
    key: int,
    value: int,
    *,
    writes: int = 1,
    channel_decay: bool = False,
    initial: bool = False,
) -> int:
    """MACs of `delta_rule` for one sequence, padding included; `initial`: from a state that is not zero."""
    count, length = chunks(tokens, writes, channel_decay)
    width = length * writes
    columns = value if count == 1 and not initial else key + value
    passed = (count - 1) * (2 * width + length) * key * value
    if initial:
        passed += (count * (width + length) + (count - 1) * width) * key * value + count * length * width * value
    # With decays per channel, blocks of 1, 2, 4 … tokens are compared in pairs: half a square in all.
    compared = length * (length - 1) if channel_decay else width * (width + length)
    within = key * compared + width**2 * columns // 2 + length * width * value
    return heads * (count * within + passed)


class _Chunks(NamedTuple):
    """What the chunks need of queries, keys and decays; leading dimensions (chunks, B · H), T tokens of W writes each.

    Attributes:
        erase: (T W, T W), below its diagonal k_tᵀ D(t, s) k_s.
        scores: (T, T W), q_tᵀ D(t, s) k_s up to the token's own writes, else 0.
        entering: (T W, K), keys times the decay since the chunk's start.
        reading: (T, K), queries times the decay since the chunk's start.
        leaving: (T W, K), keys times the decay until the chunk's end.
        total: (1, 1) or (K, 1), the decay of a whole chunk; None without decay.
    """

    erase: Tensor
    scores: Tensor
    entering: Tensor
    reading: Tensor
    leaving: Tensor
    total: Tensor | None


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None = None, initial: Tensor | None = None
) -> Tensor:
    """The outputs y (B, N, H, V) of the delta rule, in at least float32.

    Args:
        q: (B, N, H, K).
        k: (B, N · W, H, K), the W writes of a token one after another.
        v: (B, N · W, H, V).
        beta: (B, N · W, H).
        log_decay: log a, at most 0 and finite: (B, N, H), or with W = 1 (B, N, H, K); None for no decay.
        initial: (B, H, K, V), the state before the first token; zero without.
    """
    batch, tokens, heads = q.shape[:3]
    writes = k.shape[1] // tokens
    channelwise = log_decay is not None and log_decay.ndim == 4
    count, length = chunks(tokens, writes, channelwise)
    dtype = wide(torch.promote_types(q.dtype, v.dtype))
    with full_precision(q):
        q = _chunked(q.to(dtype), count, length)
        k, v = (_chunked(t.to(dtype), count, length * writes) for t in (k, v))
        beta = _chunked(beta.to(dtype)[..., None], count, length * writes)
        if log_decay is None:
            terms = _without_decay(q, k, writes)
        elif channelwise:
            terms = _channel_decay(q, k, _chunked(log_decay.to(dtype), count, length))
        else:
            terms = _head_decay(q, k, _chunked(log_decay[..., None], count, length)[..., 0], writes)
        y = _outputs(terms, v, beta, None if initial is None else initial.to(dtype).flatten(0, 1))
    return y.unflatten(1, (batch, heads)).permute(1, 0, 3, 2, 4).flatten(1, 2)[:, :tokens]


def _chunked(sequence: Tensor, count: int, length: int) -> Tensor:
    """(B, N, H, d) as (chunks, B · H, T, d), padded with zeros: padding writes nothing and does not fade."""
    padding = count * length - sequence.shape[1]
    if padding:
        sequence = F.pad(sequence, (0, 0, 0, 0, 0, padding))
    return sequence.unflatten(1, (count, length)).permute(1, 0, 3, 2, 4).flatten(1, 2)


def _without_decay(q: Tensor, k: Tensor, writes: int) -> _Chunks:
    seen = q.new_ones(q.shape[-2], q.shape[-2]).tril().repeat_interleave(writes, 1)
    return _Chunks(k @ k.mT, (q @ k.mT) * seen, k, q, k, None)


def _head_decay(q: Tensor, k: Tensor, log_decay: Tensor, writes: int) -> _Chunks:
    """All that depends on one decay per head and token, log_decay (chunks, B · H, T)."""
    dtype, length = q.dtype, q.shape[-2]
    elapsed = log_decay.double().cumsum(-1)
    # In double precision, so that a strong decay leaves the differences of later, weak ones exact.
    between = (elapsed[..., :, None] - elapsed[..., None, :]).to(dtype)
    later = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    fade = between.masked_fill(later, -torch.inf).exp()
    since_start = elapsed.to(dtype).exp()[..., None]
    until_end = (elapsed[..., -1:] - elapsed).to(dtype).exp()[..., None]
    total = since_start[..., -1:, :]
    reading = q * since_start
    if writes > 1:
        fade, since_start, until_end = (t.repeat_interleave(writes, -2) for t in (fade, since_start, until_end))
    seen = fade.repeat_interleave(writes, -1) if writes > 1 else fade
    first = seen[..., ::writes, :]  # the decay of a token is that of its first write
    return _Chunks((k @ k.mT) * seen, (q @ k.mT) * first, k * since_start, reading, k * until_end, total)


def _channel_decay(q: Tensor, k: Tensor, log_decay: Tensor) -> _Chunks:
    """All that depends on one decay per key channel, log_decay (chunks, B · H, T, K)."""
    compared = compare(torch.stack([k, q], -2).flatten(0, 1), k.flatten(0, 1), log_decay.flatten(0, 1))
    products, rows, leaving, total = (t.unflatten(0, q.shape[:2]) for t in compared)
    erase, scores = products.unbind(3)
    entering, reading = rows.unbind(3)
    return _Chunks(erase, scores, entering, reading, leaving, total[..., None])


def _outputs(terms: _Chunks, v: Tensor, beta: Tensor, initial: Tensor | None) -> Tensor:
    """The outputs (chunks, B · H, T, V), by passing the state from chunk to chunk."""
    count, key = len(v), terms.entering.shape[-1]
    right = v if count == 1 else torch.cat([terms.entering, v], -1)
    solved = _solved(terms, beta, right)
    if count == 1:
        y = terms.scores @ solved
        return y if initial is None else y + _from_initial(terms, _solved(terms, beta, terms.entering), initial)
    through, added = solved.split([key, solved.shape[-1] - key], -1)
    parts = zip(through.unbind(0), added.unbind(0), terms.leaving.mT.unbind(0), strict=True)
    totals = None if terms.total is None else terms.total.unbind(0)
    state = added.new_zeros(added.shape[1], key, added.shape[-1])
    states, updates = [], []
    for index, (from_state, own, leaving) in enumerate(parts):
        update = torch.baddbmm(own, from_state, state, alpha=-1) if index else own
        updates.append(update)
        if index < count - 1:
            faded = state if totals is None else totals[index] * state
            state = torch.baddbmm(faded, leaving, update) if index else leaving @ update
            states.append(state)
    within = terms.scores @ torch.stack(updates)
    y = torch.cat([within[:1], within[1:] + terms.reading[1:] @ torch.stack(states)])
    return y if initial is None else y + _from_initial(terms, through, initial)


def _solved(terms: _Chunks, beta: Tensor, right: Tensor) -> Tensor:
    """U of (I + diag(β) A) U = diag(β) `right`."""
    # The solver reads what stands below the diagonal, and takes the diagonal for ones.
    return torch.linalg.solve_triangular(beta * terms.erase, beta * right, upper=False, unitriangular=True)


def _from_initial(terms: _Chunks, through: Tensor, initial: Tensor) -> Tensor:
    """What the state before the first token (B · H, K, V) adds to outputs, which are affine in it: zero for zero."""
    state, states, updates = initial, [], []
    for index, (from_state, leaving) in enumerate(zip(through.unbind(0), terms.leaving.mT.unbind(0), strict=True)):
        states.append(state)
        updates.append(-(from_state @ state))
        if index < len(through) - 1:
            faded = state if terms.total is None else terms.total[index] * state
            state = torch.baddbmm(faded, leaving, updates[-1])
    return terms.scores @ torch.stack(updates) + terms.reading @ torch.stack(states)
