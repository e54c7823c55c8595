"""What mixers that average decayed recurrences along orders of the grid share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators.card import Site
from operators.cost import Cost
from operators.linear.decayed import decayed, initial_macs
from operators.linear.fla import Problem
from operators.mixers.recurrent import RecurrentCore
from operators.precision import call_type, full_precision, wide
from operators.scan import orders
from operators.states.initial import InitialStates


class Terms(NamedTuple):
    """A recurrence S_t = diag(a_t) S_{t-1} + k_t v_tᵀ, y_t = q_tᵀ S_t.

    Attributes:
        q: (B, N, G, K); each of G groups serves neighbouring heads.
        k: like q.
        v: (B, N, H, V).
        log_decay: log a, (B, N, H) or (B, N, H, K).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    log_decay: Tensor


def wide_linear(x: Tensor, linear: nn.Linear) -> Tensor:
    """The map of x in at least float32, under autocast too: half precision would round steps and decays."""
    dtype = wide(x.dtype)
    bias = None if linear.bias is None else linear.bias.to(dtype)
    with full_precision(x):
        return F.linear(x.to(dtype), linear.weight.to(dtype), bias)


class Recurrence(nn.Module):
    """A decayed recurrence along one order, with maps of its own; a subclass says what its terms are.

    Args:
        backwards: whether the sequence is read from its end.
        backend: one of `operators.linear.choice.BACKENDS`, or `auto`.
    """

    no_weight_decay: tuple[str, ...] = ()
    heads: int

    def __init__(self, *, backwards: bool, backend: str) -> None:
        super().__init__()
        self.backwards, self.backend = backwards, backend
        self.initial: InitialStates | None = None

    @property
    def problem(self) -> Problem:
        """What recurs, in sizes."""
        raise NotImplementedError

    def terms(self, v: Tensor, x: Tensor) -> Terms:
        """What recurs, in at least float32, from v (B, N, D) and x (B, N, C)."""
        raise NotImplementedError

    def cost(self, tokens: int) -> Cost:
        """Cost for one image, parameters left at zero."""
        raise NotImplementedError

    def forward(self, v: Tensor, x: Tensor) -> Tensor:
        """Mixed sequence (B, N, D), in at least float32."""
        return self.product(self.terms(v, x), x).flatten(2)

    def product(self, terms: Terms, x: Tensor) -> Tensor:
        """The outputs (B, N, H, V) of the recurrence."""
        initial = self.start(len(x))
        return decayed(*terms, reverse=self.backwards, backend=self.backend, dtype=call_type(x), initial=initial)

    def start(self, batch: int) -> Tensor | None:
        """The states (B, H, K, V) before the first token that is read; None for zero."""
        return None if self.initial is None else self.initial(batch)

    def scaled(self, weight: Tensor, x: Tensor, token: int) -> Tensor:
        """The weights (B, N, H) of all tokens at `token`, times the factors that a subclass gives to their values."""
        return weight

    def influence(self, v: Tensor, x: Tensor, token: int) -> tuple[Tensor, Tensor]:
        """Decays a averaged over heads, and how much each token counts at `token`, both (B, N).

        The latter is |q_tᵀ diag(a_{s+1} ⋯ a_t) k_s| times the factor of the token's value, such as its step, averaged
        over heads; zero for tokens not yet read. A term of the token itself beside the recurrence does not count.
        """
        q, k, _, log_decay = self.terms(v, x)
        share = log_decay.shape[2] // q.shape[2]
        q, k = (t.repeat_interleave(share, dim=2) for t in (q, k))
        log_decay = log_decay if log_decay.ndim == 4 else log_decay[..., None]
        sums = (log_decay.flip(1) if self.backwards else log_decay).cumsum(1)
        sums = sums.flip(1) if self.backwards else sums
        kept = (sums[:, token, None] - sums).clamp(max=0).exp()
        weight = self.scaled((q[:, token, None] * k * kept).sum(-1), x, token).abs().mean(-1)
        place = torch.arange(v.shape[1], device=v.device)
        seen = place >= token if self.backwards else place <= token
        return log_decay.exp().mean((2, 3)), weight * seen


class OrderedCore(RecurrentCore):
    """Base of cores that average recurrences along orders of the grid.

    Args:
        site: where the core stands.
        backend: of the recurrences.
        along: names of the orders (`operators.scan.orders`).
        branches: a recurrence for each.
    """

    def __init__(self, site: Site, *, backend: str, along: Sequence[str], branches: Sequence[Recurrence]) -> None:
        super().__init__(site, backend=backend)
        self.along = tuple(along)
        self.value_heads = branches[0].heads
        for branch in branches:
            if branch.problem.rule == "decayed":
                branch.initial = InitialStates(branch.problem.heads, branch.problem.key, branch.problem.value)
        self.branches = nn.ModuleList(branches)
        self.no_weight_decay = frozenset(
            f"branches.{i}.{name}" for i, branch in enumerate(branches) for name in branch.no_weight_decay
        )

    @property
    def problem(self) -> Problem:
        """What recurs along each order, in sizes."""
        return self._branches()[0].problem

    def forward(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Mixed field (B, H, W, D) of u (B, H, W, D): the mean over the orders."""
        self.note(x)
        height, width = u.shape[1:3]
        sums: dict[str, Tensor] = {}
        for base, v, sequence, branch in self._walks(u, x):
            mixed = branch(v, sequence)
            sums[base] = sums[base] + mixed if base in sums else mixed
        grids = [orders.scatter(mixed, base, height, width) for base, mixed in sums.items()]
        total = grids[0]
        for grid in grids[1:]:
            total = total + grid
        return (total / len(self.along)).to(u.dtype)

    def core_cost(self, height: int, width: int) -> Cost:
        """The sum of the recurrences' costs, and of reading their initial states where there are any."""
        cost = sum((branch.cost(height * width) for branch in self._branches()), Cost())
        starts = [branch.initial for branch in self._branches() if branch.initial is not None]
        reads = [initial_macs(height * width, *initial.shape) for initial in starts if initial.learned]
        return cost + Cost(mixing_macs=sum(reads))

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`decay` (B, orders, H, W), each order's decays averaged over heads, and `influence` (B, orders, H, W),

        how much each token counts at the grid's centre (`Recurrence.influence`).
        """
        height, width = u.shape[1:3]
        centre = height // 2 * width + width // 2
        parts: dict[str, list[Tensor]] = {"decay": [], "influence": []}
        for base, v, sequence, branch in self._walks(u, x):
            token = int(orders.inverse(base, height, width)[centre])
            for key, shown in zip(parts, branch.influence(v, sequence, token), strict=True):
                parts[key].append(orders.scatter(shown[..., None], base, height, width)[..., 0])
        return {key: torch.stack(maps, dim=1) for key, maps in parts.items()}

    def _walks(self, u: Tensor, x: Tensor) -> list[tuple[str, Tensor, Tensor, Recurrence]]:
        """For each order its name without `_r`, u and x along it, and its recurrence.

        A reversed order is read backwards, not copied.
        """
        bases = [orders.base(name)[0] for name in self.along]
        sequences = {base: (orders.gather(u, base), orders.gather(x, base)) for base in dict.fromkeys(bases)}
        return [(base, *sequences[base], branch) for base, branch in zip(bases, self._branches(), strict=True)]

    def _branches(self) -> list[Recurrence]:
        return [branch for branch in self.branches if isinstance(branch, Recurrence)]
