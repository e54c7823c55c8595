"""What mixers share that scan both axes of a grid: branches, each with maps of its own, from a corner of the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from operators import wavefront
from operators.card import Site
from operators.cost import Cost
from operators.errors import InputError, check_choice, check_number
from operators.mixer import Core
from operators.mixers.scan.branch import step_bias_init
from operators.precision import full_precision, wide


class Origin(NamedTuple):
    """Where a scan starts.

    Attributes:
        bottom: in the last row, going up.
        right: in the last column, going left.
        transposed: on the grid whose rows are the columns of the image; the other two speak of that grid.
    """

    bottom: bool = False
    right: bool = False
    transposed: bool = False


CORNERS: Mapping[str, Origin] = {
    "top_left": Origin(),
    "top_right": Origin(right=True),
    "bottom_left": Origin(bottom=True),
    "bottom_right": Origin(bottom=True, right=True),
}


def check_starts(name: str, given: Sequence[str], known: Mapping[str, Origin]) -> list[Origin]:
    """The starts that are meant by names. Raises `InputError` unless they are a non-empty sequence of known names."""
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise InputError(f"{name}={given!r} must be a list of {', '.join(known)}")
    return [known[check_choice(name, str(each), known)] for each in given]


def check_sizes(state_dim: int, rank: int | None) -> None:
    """Raise `InputError` where a number of states or a rank cannot be."""
    check_number("mixer.state_dim", state_dim, least=1, most=1024, integer=True)
    if rank is not None:
        check_number("mixer.rank", rank, least=1, integer=True)


def s4d_real(width: int, state_dim: int) -> nn.Parameter:
    """Logarithms of 1 … S in each channel, with A = −exp of them."""
    return nn.Parameter(torch.arange(1, state_dim + 1, dtype=torch.float32).log().repeat(width, 1))


def falling(logarithm: Tensor) -> Tensor:
    """The negative rates −exp(logarithm), at least in float32."""
    return -torch.exp(logarithm.to(wide(logarithm.dtype)))


def step_maps(width: int, rank: int, number: int) -> list[nn.Linear]:
    """Maps from a low rank to the logits of steps, initialised as in Mamba; all share one draw of the bias."""
    maps = [nn.Linear(rank, width) for _ in range(number)]
    for each in maps:
        nn.init.uniform_(each.weight, -(rank**-0.5), rank**-0.5)
    step_bias_init(maps[0].bias)
    for each in maps[1:]:
        each.bias.data.copy_(maps[0].bias.data)
    return maps


def positive(step: nn.Linear, low_rank: Tensor) -> Tensor:
    """Steps softplus(W low_rank + b), in the type of `low_rank`."""
    return F.softplus(F.linear(low_rank, step.weight.to(low_rank.dtype), step.bias.to(low_rank.dtype)))


class GridBranch(nn.Module):
    """One scan over both axes of a grid v (B, H, W, D), with steps and maps made from v: y = scan(v) + D v.

    A subclass has the parameter `D` (D), and says what recurs in `arguments` and `scan`.

    Attributes:
        operations: real operations of the scan for each cell, channel and state.
        carried: states of a cell that a neighbour needs.

    Args:
        start: where the scan starts.
        backend: of `operators.wavefront`.
    """

    no_weight_decay: ClassVar[tuple[str, ...]] = ()
    operations: ClassVar[int]
    carried: ClassVar[int] = 1
    state_dim: int
    D: nn.Parameter

    def __init__(self, start: Origin, backend: str) -> None:
        super().__init__()
        self.start, self.backend = start, backend

    def arguments(self, v: Tensor) -> dict[str, Tensor]:
        """What the scan takes besides v, by name; steps have names with `dt`."""
        raise NotImplementedError

    def scan(self, v: Tensor, **arguments: Tensor) -> Tensor:
        """Scan v with those arguments, from where it starts."""
        raise NotImplementedError

    def placed(self, field: Tensor) -> Tensor:
        """A field (B, H, W, …) on the grid of the scan, and one from there back on the image's."""
        return field.transpose(1, 2) if self.start.transposed else field

    def forward(self, v: Tensor) -> Tensor:
        """Scan v (B, H, W, D); the same shape and type. Computed at least in float32."""
        dtype, v = v.dtype, self.placed(v).to(wide(v.dtype))
        with full_precision(v):
            y = torch.addcmul(self.scan(v, **self.arguments(v)), self.D.to(v.dtype), v)
        return self.placed(y).to(dtype)

    def influence(self, v: Tensor, row: int, column: int) -> tuple[Tensor, Tensor]:
        """Steps, averaged over channels and axes, and how much each cell counts in the output at one, (B, H, W) both.

        The latter is the absolute value of that output's derivative by v, maps held fixed and D v left out, averaged
        over channels.
        """
        with torch.inference_mode(False), torch.no_grad(), full_precision(v):
            v = self.placed(v.clone()).to(wide(v.dtype))
            arguments = self.arguments(v)
            steps = torch.stack([value for name, value in arguments.items() if "dt" in name]).mean((0, -1))
            with torch.enable_grad():
                y = self.scan(v.requires_grad_(), **arguments)
                (derivative,) = torch.autograd.grad(self.placed(y)[:, row, column].sum(), v)
            return self.placed(steps), self.placed(derivative.abs().mean(-1))

    def cost(self, height: int, width: int) -> Cost:
        """A product for each weight of a linear map and token, `operations` / 2 for each token, channel and state.

        The state is that of the shorter of a row and a column.
        """
        numbers = len(self.D) * self.state_dim
        weights = sum(part.weight.numel() for part in self.modules() if isinstance(part, nn.Linear))
        return Cost(
            projection_macs=height * width * weights,
            mixing_macs=height * width * numbers * self.operations // 2,
            state_elements=min(height, width) * numbers * self.carried,
        )


class GridCore(Core):
    """Base of cores that add up scans of a grid, or take their mean.

    Args:
        site: where the core stands.
        backend: of the scans.
        branches: the scans.
    """

    def __init__(self, site: Site, *, backend: str, branches: Sequence[GridBranch]) -> None:
        super().__init__(site, backend=backend)
        self.branches = nn.ModuleList(branches)
        self.no_weight_decay = frozenset(
            f"branches.{i}.{name}" for i, branch in enumerate(branches) for name in branch.no_weight_decay
        )

    @classmethod
    def availability(cls) -> dict[str, str | None]:
        """For each backend None, or the reason why it cannot serve on this machine."""
        return wavefront.availability()

    @property
    def backend(self) -> str:
        """The scan's backend on the parameters' device."""
        if self.requested_backend != "auto":
            return self.requested_backend
        return wavefront.serving("auto", next(self.parameters()).device)

    def scans(self, u: Tensor) -> Tensor:
        """The sum of all branches, (B, H, W, D), of the field u (B, H, W, D)."""
        first, *others = self._branches()
        total: Tensor = first(u)
        for branch in others:
            total = total + branch(u)
        return total

    def core_cost(self, height: int, width: int) -> Cost:
        """The branches' costs, see `GridBranch.cost`."""
        return sum((branch.cost(height, width) for branch in self._branches()), Cost())

    def inspect(self, u: Tensor, *, x: Tensor, cond: Tensor | None = None) -> dict[str, Tensor]:
        """`step` and `influence` (B, branches, H, W): see `GridBranch.influence`, of the grid's centre."""
        height, width = u.shape[1:3]
        pairs = [branch.influence(u, height // 2, width // 2) for branch in self._branches()]
        steps, influences = zip(*pairs, strict=True)
        return {"step": torch.stack(steps, dim=1), "influence": torch.stack(influences, dim=1)}

    def _branches(self) -> list[GridBranch]:
        return [branch for branch in self.branches if isinstance(branch, GridBranch)]
