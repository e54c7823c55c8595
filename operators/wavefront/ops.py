"""The recurrences over a grid as operators of torch, carried out by compiled code."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any, ClassVar

from torch import Tensor

from operators.cpu.op import LANES, CpuOp, Tensors

SPAN = 8
"""Rows of a band: the backward pass keeps every eighth row of states, and recomputes the others band by band."""


class GridScanOp(CpuOp):
    """A recurrence over the rows and columns of a grid, in float32 or float64.

    What a tensor is shows in its name: A… are rates (D, S); B… and C… are maps (B, H, W, S); all others are fields
    (B, H, W, D). `bottom` and `right` name the corner where the scan starts.

    Attributes:
        carried: states of a cell that its lower neighbour needs.
        rates: the first of the rates.
    """

    options: ClassVar[tuple[str, ...]] = ("bool bottom", "bool right")
    results = ("y", "states")
    thread_least = 1 << 16  # updates of states
    carried: ClassVar[int] = 1

    def __init__(self) -> None:
        self.kept = (*self.tensors, "states")  # type: ignore[misc]
        self.rates = next(name for name in self.tensors if name.startswith("A"))
        super().__init__()

    def shapes(self, given: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        batch, height, width, channels = given["u"].shape
        size = given[self.rates].shape[1]
        kinds = {"A": (channels, size), "B": (batch, height, width, size), "C": (batch, height, width, size)}
        field = (batch, height, width, channels)
        bands = max(0, height - 1) // SPAN
        states = (batch, bands, width, self.carried * size, channels)
        return {**{name: kinds.get(name[0], field) for name in self.tensors}, "y": field, "states": states}

    def forward(self, *given: Any) -> Tensors:
        named = dict(zip((*self.tensors, *self._option_names), given, strict=True))
        shapes = self.shapes(named)
        made = {name: named["u"].new_empty(shapes[name]) for name in self.results}
        self._all_tasks("forward", named, made)
        return tuple(made.values())

    def backward(self, *given: Any) -> Tensors:
        named = dict(zip((*self.backward_tensors, *self._option_names), given, strict=True))
        u = named["u"]
        count = ceil(u.shape[-1] / LANES)
        made: dict[str, Tensor] = {}
        for name in self.tensors:
            shape = named[name].shape
            parts = (len(u), *shape[::-1]) if name.startswith("A") else (count, *shape) if name[0] in "BC" else shape
            made[name] = u.new_empty(parts)
        self._all_tasks("backward", named, {f"grad_{name.lower()}": part for name, part in made.items()})
        return tuple(
            part.sum(0).T.contiguous() if name.startswith("A") else part.sum(0) if name[0] in "BC" else part
            for name, part in made.items()
        )

    def _all_tasks(self, kernel: str, named: Mapping[str, Any], made: Mapping[str, Tensor]) -> None:
        u = named["u"]
        fields = {name: int(value) if isinstance(value, bool) else value for name, value in named.items()}
        work = u.numel() * named[self.rates].shape[1]
        self.run(kernel, len(u) * ceil(u.shape[-1] / LANES), work, **fields, **made, span=SPAN)


class LatticeOp(GridScanOp):
    """The scan of `operators.wavefront.lattice_scan`."""

    name = "lattice_scan"
    title = "the compiled lattice scan"
    instead = "use the backend diagonals or reference"
    once_only = "the lattice scan has second derivatives with the backends diagonals and reference only"
    module = "wavefront.lattice"
    tensors = ("u", "dt_row", "dt_col", "A_row", "A_col", "B_row", "B_col", "C")


class TwoStepOp(GridScanOp):
    """The scan of `operators.wavefront.two_step_scan`."""

    name = "two_step_scan"
    title = "the compiled two-step scan"
    instead = "use the backend diagonals or reference"
    once_only = "the two-step scan has second derivatives with the backends diagonals and reference only"
    module = "wavefront.two_step"
    tensors = ("u", "dt", "A", "B", "C")


class RoesserOp(GridScanOp):
    """The scan of `operators.wavefront.roesser_scan`."""

    name = "roesser_scan"
    title = "the compiled Roesser scan"
    instead = "use the backend diagonals or reference"
    once_only = "the Roesser scan has second derivatives with the backends diagonals and reference only"
    module = "wavefront.roesser"
    tensors = ("u", "dt_row", "dt_col", "A_1", "A_2", "A_3", "A_4", "B_row", "B_col", "C_row", "C_col")
    options = (*GridScanOp.options, "float coupling")
    carried = 2


LATTICE = LatticeOp()
TWO_STEP = TwoStepOp()
ROESSER = RoesserOp()
