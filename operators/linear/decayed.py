"""Linear recurrences with decay along a sequence, computed in chunks by products of matrices.

For each head, with keys and queries of K channels, values of V channels and decays a_t in (0, 1]

    S_t = diag(a_t) S_{t-1} + k_t v_tᵀ,   y_t = q_tᵀ S_t                                   (S is K × V)

a_t is one number per head (state-space duality, arXiv 2405.21060; retention; LION) or one per key channel (gated linear
attention, arXiv 2312.06635). With c_t = log a_1 + … + log a_t this is y_t = Σ_{s≤t} q_tᵀ diag(exp(c_t − c_s)) k_s v_s.
Inside a chunk the sum is computed as written; a state carries what other chunks leave. The sums c start anew in every
chunk, and only what is not positive is exponentiated: nothing overflows, however long the sequence and however strong
the decay. Differences c_t − c_s keep the digits of float32 (`operators.linear.chunks`); decays per channel are
multiplied up from pairs of tokens to pairs of halves, without differences (`operators.linear.channels`).

Time and memory are linear in the number of tokens. All is computed in at least float32, under autocast too.
`operators.linear.decayed_reference` has the plain recurrence.
"""

from __future__ import annotations

from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from operators.linear import decayed_reference, fla
from operators.linear.channels import compare
from operators.linear.choice import serving
from operators.linear.chunks import between, weigh
from operators.linear.fla import Problem
from operators.precision import full_precision, wide

CHUNK = 64
"""Most tokens of a chunk."""
CHANNEL_CHUNKS = (64, 32, 16)
"""Tokens of a chunk with decays per channel: powers of two, of which that one is taken which pads the least."""


def chunks(tokens: int) -> tuple[int, int]:
    """Number and length of the chunks of a sequence: as equal as can be, the last one padded."""
    count = ceil(tokens / CHUNK)
    return count, ceil(tokens / count)


def channel_chunks(tokens: int) -> tuple[int, int]:
    """As `chunks` for decays per channel."""
    length = min(CHANNEL_CHUNKS, key=lambda size: ceil(tokens / size) * size)
    return ceil(tokens / length), length


def scalar_macs(tokens: int, heads: int, groups: int, key: int, value: int, *, directions: int = 1) -> int:
    """MACs of `scalar_decay`; `directions` is 2 with both decays."""
    count, length = chunks(tokens)
    within = count * length**2 * (groups * key + heads * value)
    return within + 2 * directions * (count - 1) * length * heads * key * value


def channel_macs(tokens: int, heads: int, key: int, value: int) -> int:
    """MACs of `channel_decay`, without each token's own term, which is element-wise work."""
    count, length = channel_chunks(tokens)
    # At every doubling half of the tokens are compared with the other half: with 1 + 2 + … + T/2 tokens of it.
    within = count * (length * (length - 1) * key // 2 + length**2 * value)
    return heads * (within + 2 * (count - 1) * length * key * value)


def decayed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    reverse: bool = False,
    backend: str,
    dtype: torch.dtype | None = None,
    initial: Tensor | None = None,
) -> Tensor:
    """The recurrence with decays (B, N, H) or (B, N, H, K), see `scalar_decay`.

    Args:
        q: (B, N, G, K).
        k: like q.
        v: (B, N, H, V).
        log_decay: finite and at most 0.
        reverse: whether the last token comes first.
        backend: one of `operators.linear.choice.BACKENDS`, or `auto`.
        dtype: in which `fla` multiplies; None for the type of v.
        initial: (B, H, K, V), the state before the first token that is read; zero without.
    """
    dtype = v.dtype if dtype is None else dtype
    problem = Problem("decayed", "channel" if log_decay.ndim == 4 else "head", v.shape[2], q.shape[3], v.shape[3])
    engine = serving(backend, problem, v.device, dtype)
    if engine == "reference":
        with full_precision(v):
            q, k, v, log_decay = (t.to(wide(t.dtype)) for t in (q, k, v, log_decay))
            start = None if initial is None else initial.to(v.dtype)
            return decayed_reference.recurrence(q, k, v, log_decay, reverse=reverse, initial=start)
    if engine == "fla":
        *turned, decay = (t.flip(1) if reverse else t for t in (q, k, v, log_decay))
        y = fla.run(problem, dtype, *turned, log_decay=decay)
        y = y.flip(1) if reverse else y
    elif log_decay.ndim == 4:
        y = channel_decay(q, k, v, log_decay, reverse=reverse)
    else:
        y = scalar_decay(q, k, v, **{"backward" if reverse else "forward": log_decay})
    return y if initial is None else y + from_initial(q, log_decay, initial, reverse=reverse)


def from_initial(q: Tensor, log_decay: Tensor, initial: Tensor, *, reverse: bool = False) -> Tensor:
    """What the tokens read of the state before the first one, q_tᵀ diag(a_1 ⋯ a_t) S_0, (B, N, H, V).

    It is added to the outputs of the recurrence from zero. Takes q, log_decay and initial as `decayed` does.
    """
    with full_precision(q):
        q = q.to(wide(q.dtype)).repeat_interleave(log_decay.shape[2] // q.shape[2], dim=2)
        log_decay = log_decay.flip(1) if reverse else log_decay
        since = exact_sums(log_decay.movedim(1, -1)).movedim(-1, 1)
        since = (since.flip(1) if reverse else since).to(q.dtype).exp()
        reading = q * (since if since.ndim == 4 else since[..., None])
        return (reading.transpose(1, 2) @ initial.to(q.dtype)).transpose(1, 2)


def initial_macs(tokens: int, heads: int, key: int, value: int) -> int:
    """MACs of the products of `from_initial`."""
    return tokens * heads * key * value


def scalar_decay(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    forward: Tensor | None = None,
    backward: Tensor | None = None,
    own: Tensor | None = None,
) -> Tensor:
    """The recurrence with one decay per head: from the first token, from the last, or the sum of both.

    The sum counts each token's own term q_tᵀ k_t v_t once.

    Args:
        q: (B, N, G, K); each of the G groups serves H / G neighbouring heads.
        k: like q.
        v: (B, N, H, V).
        forward: log a (B, N, H), finite and at most 0, of the recurrence S_t = a_t S_{t-1} + k_t v_tᵀ.
        backward: the same for S_t = a_t S_{t+1} + k_t v_tᵀ.
        own: (B, N, H), factors of each token's own term; 1 unless given.

    Returns:
        y (B, N, H, V), in at least float32.
    """
    tokens, groups = q.shape[1:3]
    share, width = v.shape[2] // groups, v.shape[3]
    count, length = chunks(tokens)
    with full_precision(v):
        q, k, v = (_by_head(t, count, length) for t in (q, k, v))  # (chunks, B, G or H, T, ·)
        forward, backward, own = (
            None if t is None else _by_head(t[..., None], count, length)[..., 0] for t in (forward, backward, own)
        )
        ahead, back = (None if log is None else exact_sums(log) for log in (forward, backward))
        y = weigh(q @ k.mT, ahead, None if back is None else _before(back), own) @ v
        for c, reverse in ((ahead, False), (back, True)):
            if c is not None and count > 1:
                entering, leaving, whole = (w.to(v.dtype).exp() for w in ends(c, reverse=reverse))
                leaving_v = (v * leaving[..., None]).unflatten(2, (groups, share))
                # One product for all heads of a group.
                together = leaving_v.transpose(3, 4).flatten(4) if share > 1 else leaving_v.squeeze(3)
                kept = whole.unflatten(2, (groups, share)).expand(-1, -1, -1, -1, width).flatten(3)[..., None, :]
                read = between(q, k, together, kept, reverse)
                if share > 1:
                    read = read.unflatten(4, (share, width)).transpose(3, 4).flatten(2, 3)
                y = torch.addcmul(y, read, entering[..., None])
        return _by_token(y, tokens)


def channel_decay(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, *, reverse: bool = False) -> Tensor:
    """The recurrence with one decay per head and key channel.

    Args:
        q: (B, N, H, K).
        k: like q.
        v: (B, N, H, V).
        log_decay: log a (B, N, H, K), finite and at most 0.
        reverse: whether the last token comes first.

    Returns:
        y (B, N, H, V), in at least float32.
    """
    tokens = q.shape[1]
    count, length = channel_chunks(tokens)
    with full_precision(v):
        q, k, v, log_decay = (_by_head(t, count, length) for t in (q, k, v, log_decay))
        compared = compare(q.flatten(0, 2)[:, :, None], k.flatten(0, 2), log_decay.flatten(0, 2), reverse)
        products, reading, leaving, total = (t.unflatten(0, q.shape[:3]) for t in compared)
        y = products[..., 0, :] @ v
        if count > 1:
            y = y + between(reading[..., 0, :], leaving, v, total[..., None], reverse)
        return _by_token(y, tokens)


def _by_head(tensor: Tensor, count: int, length: int) -> Tensor:
    """(B, N, H, d) as (chunks, B, H, T, d) in one piece, padded with zeros: tokens that add nothing, and keep all."""
    tensor = tensor.to(wide(tensor.dtype))
    missing = count * length - tensor.shape[1]
    if missing:
        tensor = F.pad(tensor, (0, 0, 0, 0, 0, missing))
    return tensor.unflatten(1, (count, length)).permute(1, 0, 3, 2, 4).contiguous()


def _by_token(y: Tensor, tokens: int) -> Tensor:
    """(chunks, B, H, T, d) as (B, N, H, d), without padding: y itself where there is none."""
    y = y.permute(1, 0, 3, 2, 4).flatten(1, 2)
    return y if y.shape[1] == tokens else y[:, :tokens]  # the gradient of a slice is a copy


def exact_sums(log_decay: Tensor) -> Tensor:
    """Sums of logarithms (…, T) over the tokens, from the first to each, in float64 where the device has it."""
    return (log_decay if log_decay.device.type == "mps" else log_decay.double()).cumsum(-1)


def ends(c: Tensor, *, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Logarithms of what is kept from entering to each token, from each token to leaving, and over all tokens.

    Args:
        c: what `exact_sums` gives.
        reverse: whether the last token is the first that is read.
    """
    whole = c[..., -1:]
    if reverse:
        before = _before(c)
        return whole - before, before, whole
    return c, whole - c, whole


def pair_sums(c: Tensor, *, reverse: bool) -> Tensor:
    """Logarithms of what token t keeps of token s, (…, T, T), from sums as in `ends`; −∞ where t does not read s."""
    unread = torch.full((c.shape[-1], c.shape[-1]), -torch.inf, dtype=c.dtype, device=c.device)
    if reverse:
        before = _before(c)
        return before[..., None, :] - before[..., :, None] + unread.tril(-1)
    return c[..., :, None] - c[..., None, :] + unread.triu(1)


def _before(c: Tensor) -> Tensor:
    """The sums (…, T) without each token's own logarithm."""
    return F.pad(c[..., :-1], (1, 0))
