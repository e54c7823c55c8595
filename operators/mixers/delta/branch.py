"""The delta rule over the tokens of a grid in several orders, each with maps of its own: what the family shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import Site
from operators.cost import Cost
from operators.errors import check_choice, check_number
from operators.initialisation import linear_init
from operators.linear import fla
from operators.linear.choice import serving
from operators.linear.delta import delta_macs, delta_rule
from operators.linear.delta_reference import recurrence
from operators.linear.fla import Problem
from operators.mixers.heads import check_heads, default_heads
from operators.mixers.recurrent import RecurrentCore
from operators.mixers.scan.branch import check_orders
from operators.precision import full_precision, wide
from operators.scan import orders
from operators.states.initial import InitialStates

NORM_EPS = 1e-6
"""Added to the squared length of queries and keys, as flash-linear-attention does."""
STEP = (1e-3, 1e-1)
"""Least and greatest softplus of the decay's bias at the start."""


class Decay(nn.Module):
    """Logarithm of the decay: −exp(A_log) softplus(W x + b), with one A_log for each head.

    Initialised as in Mamba-2 and its successors: b the inverse of softplus at steps spread evenly in logarithm over
    `STEP`, exp(A_log) even over an interval.

    Args:
        dim: channels C of x.
        heads: numbers per token.
        channels: key channels K per head with a decay each; None for one decay per head.
        rank: inner width of W with `channels`, which then is the product of two maps.
        interval: least and greatest exp(A_log) at the start; the former is open.
    """

    no_weight_decay = ("A_log", "bias")

    def __init__(self, dim: int, heads: int, *, channels: int | None, rank: int, interval: tuple[float, float]) -> None:
        super().__init__()
        self.shape = (heads,) if channels is None else (heads, channels)
        outputs = math.prod(self.shape)
        widths = [dim, outputs] if channels is None else [dim, rank, outputs]
        self.maps = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(widths))
        low, high = interval
        self.A_log = nn.Parameter((high - (high - low) * torch.rand(heads)).log())
        start = torch.empty(outputs).uniform_(*(math.log(step) for step in STEP)).exp()
        self.bias = nn.Parameter(start + torch.log(-torch.expm1(-start)))
        for linear in self.linears():
            linear_init(linear)

    def linears(self) -> list[nn.Linear]:
        """The maps whose product is W."""
        return [linear for linear in self.maps if isinstance(linear, nn.Linear)]

    def forward(self, x: Tensor) -> Tensor:
        """Log decays (B, N, H) or (B, N, H, K), at least in float32, of x (B, N, C)."""
        with full_precision(x):
            dtype = wide(x.dtype)
            x = x.to(dtype)
            for linear in self.linears():
                x = F.linear(x, linear.weight.to(dtype))
            steps = F.softplus(x + self.bias.to(dtype)).unflatten(-1, self.shape)
            rate = self.A_log.to(dtype).exp()
            return -(rate if len(self.shape) == 1 else rate[:, None]) * steps


class Written(NamedTuple):
    """Arguments of `delta_rule` for one order: queries, keys, values, write strengths and log decay (None: none)."""

    q: Tensor
    k: Tensor
    v: Tensor
    beta: Tensor
    log_decay: Tensor | None


class DeltaBranch(nn.Module):
    """Queries, keys, values, write strengths and decays of a sequence.

        q = unit(SiLU(W_q x)) / √K,   k = unit(SiLU(W_k x)),   β = σ(W_β x)

    One of a token's values is the field's u, any others are maps of x. With a convolution, q, k and v pass one before
    SiLU, which v then gets as well.

    Args:
        site: where the core stands.
        heads: heads H.
        key_width: channels K of queries and keys per head.
        writes: writes W of each token.
        conv: width of the causal depthwise convolution along the sequence; 0 for none.
        reach: least upper bound of the write strength β, 1 or 2.
        decay: of the state; None for none.
    """

    def __init__(
        self, site: Site, *, heads: int, key_width: int, writes: int, conv: int, reach: float, decay: Decay | None
    ) -> None:
        super().__init__()
        self.heads, self.key_width, self.writes, self.reach = heads, key_width, writes, reach
        self.value_width = site.width // heads
        keys, values = heads * key_width, site.width
        self.query_key = nn.Linear(site.dim, keys * (1 + writes), bias=False)
        self.value = nn.Linear(site.dim, values * (writes - 1), bias=False) if writes > 1 else None
        self.strength = nn.Linear(site.dim, heads * writes, bias=False)
        for linear in filter(None, (self.query_key, self.value, self.strength)):
            linear_init(linear)
        channels = keys * (1 + writes) + values * writes
        self.conv = nn.Conv1d(channels, channels, conv, groups=channels, bias=False) if conv else None
        self.decay = decay
        self.initial = InitialStates(heads, key_width, self.value_width)

    def linears(self) -> list[nn.Linear]:
        """All maps of a token."""
        return [module for module in self.modules() if isinstance(module, nn.Linear)]

    def forward(self, u: Tensor, x: Tensor) -> Written:
        """Of the field u (B, N, D) and the mixer's input x (B, N, C) in the order of the sequence."""
        keys = self.heads * self.key_width
        streams = [self.query_key(x), u]
        if self.value is not None:
            streams.append(self.value(x))
        dtype = wide(u.dtype)
        with full_precision(u):
            together = [stream.to(dtype) for stream in streams]
            if self.conv is None:
                qk, v = F.silu(together[0]), torch.cat(together[1:], -1)
            else:
                padded = F.pad(torch.cat(together, -1).mT, (self.conv.weight.shape[-1] - 1, 0))
                convolved = F.conv1d(padded, self.conv.weight.to(dtype), groups=self.conv.groups).mT
                qk, v = F.silu(convolved).split([keys * (1 + self.writes), self.writes * u.shape[-1]], -1)
            qk = qk.unflatten(-1, (1 + self.writes, self.heads, self.key_width))
            qk = qk * torch.rsqrt(qk.square().sum(-1, keepdim=True) + NORM_EPS)
            strength = F.linear(x.to(dtype), self.strength.weight.to(dtype))
            return Written(
                qk[:, :, 0] * self.key_width**-0.5,
                qk[:, :, 1:].flatten(1, 2),
                v.unflatten(-1, (self.writes, self.heads, self.value_width)).flatten(1, 2),
                self.reach * torch.sigmoid(strength.unflatten(-1, (self.writes, self.heads)).flatten(1, 2)),
                None if self.decay is None else self.decay(x),
            )

    def cost(self, tokens: int) -> Cost:
        """The maps, and the convolution's taps for each channel; the state."""
        taps = 0 if self.conv is None else self.conv.weight.numel()
        return Cost(
            projection_macs=tokens * sum(linear.weight.numel() for linear in self.linears()),
            mixing_macs=tokens * taps,
            state_elements=self.heads * self.key_width * self.value_width,
        )


class DeltaCore(RecurrentCore):
    """Base of the cores that average delta rules over one grid in several orders, each with maps of its own.

    Args:
        site: where the core stands.
        backend: one of `operators.linear.choice.BACKENDS`, or `auto`.
        along: names of the orders (`operators.scan.orders`), one branch each.
        heads: heads H; None for heads about 64 wide.
        key_width: channels K of queries and keys per head; None for `key_ratio` times those of values.
        conv: width of the causal convolutions along each order; 0 or None for none.
        negative_eigenvalues: whether write strengths reach 2 instead of 1.
        key_ratio: channels of queries and keys over those of values, rounded.
        writes: writes of each token.
        decay: what has a decay of its own.
        interval: of exp(A_log) at the start.

    Raises:
        InputError: an unknown order, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str,
        along: Sequence[str],
        heads: int | None,
        key_width: int | None,
        conv: int | None,
        negative_eigenvalues: bool,
        key_ratio: float = 1.0,
        writes: int = 1,
        decay: Literal["none", "head", "channel"] = "none",
        interval: tuple[float, float] = (0.0, 16.0),
    ) -> None:
        super().__init__(site, backend=backend)
        self.along = check_orders("mixer.orders", along)
        heads = default_heads(site.width) if heads is None else heads
        check_heads(heads, site.width)
        self.value_heads = heads
        if key_width is not None:
            check_number("mixer.key_width", key_width, least=1, most=4096, integer=True)
        conv = 0 if conv is None else conv
        check_number("mixer.conv", conv, least=0, most=64, integer=True)
        check_choice("mixer.negative_eigenvalues", negative_eigenvalues, (True, False))
        self.decay = decay
        keys = max(1, round(key_ratio * (site.width // heads))) if key_width is None else key_width
        self.branches = nn.ModuleList(
            DeltaBranch(
                site,
                heads=heads,
                key_width=keys,
                writes=writes,
                conv=conv,
                reach=2.0 if negative_eigenvalues else 1.0,
                decay=None
                if decay == "none"
                else Decay(
                    site.dim,
                    heads,
                    channels=keys if decay == "channel" else None,
                    rank=site.width // heads,
                    interval=interval,
                ),
            )
            for _ in self.along
        )
        self.no_weight_decay = frozenset(
            f"branches.{i}.decay.{name}"
            for i in range(len(self.along))
            for name in (() if decay == "none" else Decay.no_weight_decay)
        )

    @property
    def problem(self) -> Problem:
        """What recurs, in sizes, the orders' heads side by side."""
        branches = self._branches()
        key, value, writes = branches[0].key_width, branches[0].value_width, branches[0].writes
        heads = len(branches) * branches[0].heads
        return Problem("delta", self.decay, heads, key, value, writes, initial=branches[0].initial.learned)

    def written(self, u: Tensor, x: Tensor) -> Written:
        """Arguments of `delta_rule`, the orders' heads side by side, each order's tokens in its own order."""
        parts = [
            branch(orders.gather(u, name), orders.gather(x, name))
            for name, branch in zip(self.along, self._branches(), strict=True)
        ]
        decays = [part.log_decay for part in parts if part.log_decay is not None]
        q, k, v, beta = (torch.cat(streams, 2) for streams in zip(*(part[:4] for part in parts), strict=True))
        return Written(q, k, v, beta, torch.cat(decays, 2) if decays else None)

    def start(self, batch: int) -> Tensor | None:
        """The states (B, H, K, V) before the first token, the orders' heads side by side; None for zero."""
        states = [branch.initial(batch) for branch in self._branches()]
        given = [state for state in states if state is not None]
        return torch.cat(given, 1) if given else None

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """The mean of all orders, (B, H, W, D), of the field u (B, H, W, D)."""
        height, width = u.shape[1:3]
        dtype = self.note(x)
        engine = serving(self.requested_backend, self.problem, u.device, dtype)
        q, k, v, beta, log_decay = written = self.written(u, x)
        if engine == "fla":
            y = fla.run(self.problem, dtype, q, k, v, log_decay=log_decay, beta=beta)
        elif engine == "reference":
            with full_precision(u):
                y = recurrence(*written, self.start(len(u)))[0]
        else:
            y = delta_rule(*written, self.start(len(u)))
        sequences = y.flatten(2).chunk(len(self.along), -1)
        grids = [orders.scatter(part, name, height, width) for name, part in zip(self.along, sequences, strict=True)]
        return (sum(grids[1:], grids[0]) / len(grids)).to(u.dtype)

    def core_cost(self, height: int, width: int) -> Cost:
        """The branches' maps, and the products of `delta_rule`, padding included."""
        branches, tokens = self._branches(), height * width
        first = branches[0]
        mixing = delta_macs(
            tokens,
            len(branches) * first.heads,
            first.key_width,
            first.value_width,
            writes=first.writes,
            channel_decay=self.decay == "channel",
            initial=first.initial.learned,
        )
        return sum((branch.cost(tokens) for branch in branches), Cost(mixing_macs=mixing))

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`strength` (B, orders, H, W), the write strengths, averaged over heads and writes; with decay `decay`, alike;

        and `influence` (B, orders, H, W): the factor of each token's field u in the output at the grid's centre, its
        size averaged over heads. Takes memory for N² numbers per image and head.
        """
        height, width = u.shape[1:3]
        centre = height // 2 * width + width // 2
        parts: dict[str, list[Tensor]] = {"strength": [], "influence": []}
        for name, branch in zip(self.along, self._branches(), strict=True):
            q, k, v, beta, log_decay = branch(orders.gather(u, name), orders.gather(x, name))
            each = torch.eye(height * width, dtype=v.dtype, device=v.device)
            unit = F.pad(each[:, None], (0, 0, 0, branch.writes - 1)).flatten(0, 1)  # only the first write is of u
            values = unit[:, None].expand(*v.shape[:3], -1)
            token = int(orders.inverse(name, height, width)[centre])
            shown = {
                "strength": beta.unflatten(1, (-1, branch.writes)).mean((2, 3)),
                "influence": delta_rule(q, k, values, beta, log_decay)[:, token].abs().mean(1),
            }
            if log_decay is not None:
                shown["decay"] = log_decay.exp().flatten(2).mean(2)
            for key, sequence in shown.items():
                grid = orders.scatter(sequence[..., None], name, height, width)[..., 0]
                parts.setdefault(key, []).append(grid)
        return {key: torch.stack(maps, dim=1) for key, maps in parts.items()}

    def _branches(self) -> list[DeltaBranch]:
        return [branch for branch in self.branches if isinstance(branch, DeltaBranch)]
