"""Long convolutions along sequences: by transforms of twice the length, beside the sum that defines them."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.pde.propagators import apply_transfer, permuted


def convolve(u: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """y_t = Σ_{s ≤ t} forward[t − s] u_s + Σ_{s > t} backward[s − t − 1] u_s, for u (B, N, D) and filters (N, D)."""
    length = u.shape[1]
    if not len(u):  # torch refuses to transform an empty batch
        return u * (forward.sum() + backward.sum())
    kernel = torch.cat([forward, backward.flip(0)])
    waves = torch.fft.rfft(u, n=2 * length, dim=1) * torch.fft.rfft(kernel, dim=0)
    return torch.fft.irfft(waves, n=2 * length, dim=1)[:, :length]


def convolve_directly(u: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """The definition of `convolve`, with the N × N matrix of every channel."""
    length = u.shape[1]
    both = torch.cat([backward[: length - 1].flip(0), forward])
    matrix = both.unfold(0, length, 1).flip(-1)  # (N, D, N): [t, d, s] is both[t − s + N − 1]
    return torch.einsum("tds,bsd->btd", matrix, u)


def respond_to_sequences(forward: Tensor, backward: Tensor | None = None) -> Tensor:
    """The response (D, N + 1), complex, for `filter_sequences`, of filters (D, N) as of `convolve`.

    Without `backward`, no output meets a later input.
    """
    length = forward.shape[-1]
    kernel = forward if backward is None else torch.cat([forward, backward.flip(-1)], dim=-1)
    return torch.fft.rfft(kernel, n=2 * length)


def filter_sequences(u: Tensor, response: Tensor) -> Tensor:
    """As `convolve` for u (B, N, D), given the response (D, N + 1) of both filters on twice the length."""
    if not len(u):
        return u * response.real.sum().to(u.dtype)
    return permuted(apply_transfer(permuted(u, 0, 2, 1), response, "absorbing", axes=1), 0, 2, 1)
