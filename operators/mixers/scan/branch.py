"""One selective scan over the tokens of a grid with maps of its own: what `mamba`, `ss2d` and their kin are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators import scan
from operators.card import Site
from operators.cost import Cost
from operators.errors import InputError, check_number
from operators.initialisation import linear_init
from operators.mixer import Core
from operators.precision import full_precision, wide
from operators.scan import orders
from operators.scan.steps import StepChange, changed_steps
from operators.states.initial import InitialStates

STEP = (1e-3, 1e-1)
"""Least and greatest step size at the start."""


@torch.no_grad()
def step_bias_init(bias: Tensor) -> None:
    """Fill `bias` with the inverse of softplus at steps spread evenly in logarithm over `STEP`."""
    low, high = (math.log(step) for step in STEP)
    start = bias.uniform_(low, high).exp()
    bias.copy_(start + torch.log(-torch.expm1(-start)))


def causal_convolution(sequence: Tensor, conv: nn.Conv1d, *, backwards: bool) -> Tensor:
    """SiLU of a depthwise convolution of (B, N, D), in which no token meets a later one (backwards: an earlier one).

    In the type of the sequence, whatever that of the filters is.
    """
    weight = conv.weight.to(sequence.dtype)
    bias = None if conv.bias is None else conv.bias.to(sequence.dtype)
    reach = weight.shape[-1] - 1
    if backwards:
        padded, weight = F.pad(sequence.mT, (0, reach)), weight.flip(-1)
    else:
        padded = F.pad(sequence.mT, (reach, 0))
    return F.silu(F.conv1d(padded, weight, bias, groups=len(weight))).mT


class Branch(nn.Module):
    """S6 on a sequence v (B, N, D), with its step size, input and output maps made from that sequence.

        v = SiLU(causal convolution of v)                                (only with `conv`)
        [d | B | C] = W_x v,   dt = softplus(W_dt d + b_dt)
        h_t = exp(dt_t A) h_{t-1} + dt_t B_t v_t,   y_t = C_t · h_t + D v_t,   A = -exp(A_log)

    Initialised as in Mamba (arXiv 2312.00752, section 3.6; `mamba_simple.py` of state-spaces/mamba): W_dt uniform
    within ± rank^(-1/2), b_dt the inverse of softplus at steps spread evenly in logarithm over `STEP`, A_log_s = log s
    (S4D-real), D = 1, the convolution as torch does.

    Attributes:
        step_change: what `operators.transfer` makes of its steps; None: nothing.

    Args:
        width: channels D.
        state_dim: states S per channel.
        rank: rank R of the step's map.
        conv: width of the causal depthwise convolution; 0 or None for none.
        backwards: whether the sequence is read from its end (the convolution too).
        backend: of `operators.scan.selective_scan`.
    """

    no_weight_decay = ("A_log", "D", "step.bias")
    step_change: StepChange | None = None

    def __init__(
        self, width: int, *, state_dim: int, rank: int, conv: int | None, backwards: bool, backend: str
    ) -> None:
        super().__init__()
        self.state_dim, self.rank, self.backwards, self.backend = state_dim, rank, backwards, backend
        self.conv = nn.Conv1d(width, width, conv, groups=width) if conv else None
        self.project = nn.Linear(width, rank + 2 * state_dim, bias=False)
        linear_init(self.project)
        self.step = nn.Linear(rank, width)
        with torch.no_grad():
            self.step.weight.uniform_(-(rank**-0.5), rank**-0.5)
        step_bias_init(self.step.bias)
        self.A_log = nn.Parameter(torch.arange(1, state_dim + 1, dtype=torch.float32).log().repeat(width, 1))
        self.D = nn.Parameter(torch.ones(width))
        self.initial = InitialStates(width, state_dim)

    def convolve(self, v: Tensor) -> Tensor:
        """What is scanned, (B, N, D)."""
        if self.conv is None:
            return v
        return causal_convolution(v, self.conv, backwards=self.backwards)

    def maps(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step before bias and softplus (B, N, D), and the input and output maps (B, N, S), of what is scanned.

        At least in float32, like the recurrence: half precision would round its step and both its maps.
        """
        with full_precision(v):
            dtype = wide(v.dtype)
            maps = F.linear(v.to(dtype), self.project.weight.to(dtype))
            low_rank, B, C = maps.split([self.rank, self.state_dim, self.state_dim], dim=-1)
            return F.linear(low_rank, self.step.weight.to(dtype)), B, C

    def forward(self, v: Tensor) -> Tensor:
        """Scan v (B, N, D); the same shape, in the type of what is scanned."""
        v = self.convolve(v)
        dtype, v = v.dtype, v.to(wide(v.dtype))
        return self.recur(v, *self.maps(v), reverse=self.backwards).to(dtype)

    def recur(self, v: Tensor, step: Tensor, B: Tensor, C: Tensor, *, reverse: bool, sequence: int = 0) -> Tensor:
        """The recurrence of v (B, N, D) with maps such as `maps` makes, read from its end with `reverse`.

        `sequence` says from which of the initial states.
        """
        A = self.rates()
        y = scan.selective_scan(
            v.mT, A=A, B=B.mT, C=C.mT, D=self.D, backend=self.backend, reverse=reverse,
            initial_state=self.initial(len(v), sequence),
            **changed_steps(step, self.step.bias, A, self.step_change),
        )  # fmt: skip
        assert isinstance(y, Tensor)
        return y.mT

    def rates(self) -> Tensor:
        """A (D, S), negative, in at least float32."""
        with full_precision(self.A_log):
            return -torch.exp(self.A_log.to(wide(self.A_log.dtype)))

    def influence(self, v: Tensor, token: int) -> tuple[Tensor, Tensor]:
        """Steps dt (B, N, D), and how much step s of the sequence counts in the output at `token`, (B, N).

        The latter is the masked-attention form of the scan, Σ_n C_t[n] exp(A_n Σ_{s<r≤t} dt_r) B_s[n] dt_s, its
        absolute value averaged over channels; zero after `token`. Takes memory for N·D·S numbers per image.
        """
        return self.influence_of(*self.maps(self.convolve(v)), token, reverse=self.backwards)

    def influence_of(self, step: Tensor, B: Tensor, C: Tensor, token: int, *, reverse: bool) -> tuple[Tensor, Tensor]:
        """As `influence`, of a recurrence with these maps."""
        with full_precision(step):
            steps = F.softplus(step + self.step.bias.to(step.dtype))
            in_order = steps.flip(1) if reverse else steps
            elapsed = in_order.cumsum(1).flip(1) if reverse else in_order.cumsum(1)
            gap = elapsed[:, token, None] - elapsed
            fade = torch.exp(gap.clamp(min=0)[..., None] * self.rates().to(step.dtype))
            weight = torch.einsum("bn,bsdn,bsn,bsd->bsd", C[:, token], fade, B, steps)
            index = torch.arange(step.shape[1], device=step.device)
            seen = index >= token if reverse else index <= token
            return steps, weight.abs().mean(-1) * seen

    def cost(self, tokens: int) -> Cost:
        """Per token D (R + 2 S) + R D for the maps, 9 S D / 2 for the scan, D for each tap of the convolution."""
        width = len(self.D)
        taps = 0 if self.conv is None else self.conv.weight.shape[-1]
        return Cost(
            projection_macs=tokens * (self.project.weight.numel() + self.step.weight.numel()),
            mixing_macs=tokens * width * (9 * self.state_dim) // 2 + taps * tokens * width,
            state_elements=width * self.state_dim,
        )


def sum_of_scans(
    u: Tensor, along: Sequence[str], branches: Sequence[Branch], after: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """The sum over orders of a branch's scan of the field u (B, H, W, D), the same shape.

    Args:
        u: the field.
        along: names of the orders.
        branches: one for each order; its `backwards` is that of the order.
        after: what is done to each scanned sequence (B, N, D) before the sum.
    """
    bases = [orders.base(name)[0] for name in along]
    ways = orders.Ways(bases, u.shape[1], u.shape[2], u.device)
    sums: dict[str, Tensor] = {}
    sequences: dict[str, Tensor] = {}
    for base, branch in zip(bases, branches, strict=True):
        # A reversed order is read backwards, not copied; and orders that share a sequence share its way back.
        if base not in sequences:
            sequences[base] = ways.gather(u, base)
        scanned = branch(sequences[base])
        if after is not None:
            scanned = after(scanned)
        sums[base] = sums[base] + scanned if base in sums else scanned
    total: Tensor | None = None
    for base, sequence in sums.items():
        grid = ways.scatter(sequence, base)
        total = grid if total is None else total + grid
    assert total is not None
    return total


def seen_from(u: Tensor, name: str, branch: Branch, place: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
    """A branch's steps averaged over channels, and how much each token counts at a place, both (B, H, W).

    Args:
        u: the field (B, H, W, D).
        name: the order.
        branch: that scans the field along the order.
        place: row and column; the grid's centre unless given.
    """
    height, width = u.shape[1:3]
    row, column = (height // 2, width // 2) if place is None else place
    base = orders.base(name)[0]
    token = int(orders.inverse(base, height, width)[row * width + column])
    steps, influence = branch.influence(orders.gather(u, base), token)
    found = [
        orders.scatter(sequence[..., None], base, height, width)[..., 0] for sequence in (steps.mean(-1), influence)
    ]
    return found[0], found[1]


class ScanCore(Core):
    """Base of cores that scan one grid in several orders, each with maps of its own.

    Args:
        site: where the core stands.
        backend: of the scan.
        along: names of the orders (`operators.scan.orders`), one branch each.
        state_dim: states S per channel.
        rank: rank of the step's map; None for a sixteenth of the mixer's width, rounded up.
        conv: width of a causal convolution along each order, in front of its scan; 0 or None for none.
        channels: how many channels each branch scans; None for all of the site's.

    Raises:
        InputError: an unknown order, or a number out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        backend: str,
        along: Sequence[str],
        state_dim: int,
        rank: int | None,
        conv: int | None = None,
        channels: int | None = None,
    ) -> None:
        super().__init__(site, backend=backend)
        check_number("mixer.state_dim", state_dim, least=1, most=1024, integer=True)
        if rank is not None:
            check_number("mixer.rank", rank, least=1, integer=True)
        if conv is not None:
            check_number("mixer.conv", conv, least=0, most=64, integer=True)
        self.along = tuple(along)
        self.branches = nn.ModuleList(
            Branch(
                site.width if channels is None else channels,
                state_dim=state_dim,
                rank=math.ceil(site.dim / 16) if rank is None else rank,
                conv=conv,
                backwards=orders.base(name)[1],
                backend=backend,
            )
            for name in self.along
        )
        self.no_weight_decay = frozenset(
            f"branches.{i}.{name}" for i in range(len(self.along)) for name in Branch.no_weight_decay
        )

    @classmethod
    def availability(cls) -> dict[str, str | None]:
        """For each backend None, or the reason why it cannot serve on this machine."""
        return scan.availability()

    @property
    def backend(self) -> str:
        """The scan's backend on the parameters' device."""
        if self.requested_backend != "auto":
            return self.requested_backend
        parameter = next(self.parameters())
        states = any(branch.initial.learned for branch in self._branches())
        return scan.serving("auto", parameter.device, wide(parameter.dtype), states=states)

    def scans(self, u: Tensor) -> Tensor:
        """The sum of all branches, (B, H, W, D), of the field u (B, H, W, D)."""
        return sum_of_scans(u, self.along, self._branches())

    def core_cost(self, height: int, width: int) -> Cost:
        """The branches' costs, see `Branch.cost`."""
        return sum((branch.cost(height * width) for branch in self._branches()), Cost())

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`step` (B, orders, H, W), each branch's step size averaged over channels, and `influence` (B, orders, H, W),

        how much each token counts at the grid's centre (`Branch.influence`).
        """
        seen = [seen_from(u, name, branch) for name, branch in zip(self.along, self._branches(), strict=True)]
        steps, influences = zip(*seen, strict=True)
        return {"step": torch.stack(steps, dim=1), "influence": torch.stack(influences, dim=1)}

    def _branches(self) -> list[Branch]:
        return [branch for branch in self.branches if isinstance(branch, Branch)]


def check_orders(name: str, along: Sequence[str]) -> tuple[str, ...]:
    """The orders as a tuple. Raises `InputError` unless they are a non-empty sequence of known names."""
    if isinstance(along, str) or not isinstance(along, Sequence) or not along:
        raise InputError(f"{name}={along!r} must be a list of scan orders, such as [row, row_r]")
    for order in along:
        orders.base(str(order))
    return tuple(along)
