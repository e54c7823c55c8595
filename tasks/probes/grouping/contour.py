"""Contour: whether two ends belong to one dashed curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import coo_array, csgraph
from scipy.spatial import KDTree

from operators.errors import InputError, check_number
from tasks.probes.probe import Array, Kind, Probe, Sample, Samples

Curve = npt.NDArray[np.float64]
"""Points (P, 2) as (row, column), `STEP` cells apart."""

STEP = 0.5
NEAR = STEP + np.sqrt(2)
"""Cells of two dashes may be this much further apart than `gap`: points are spaced, and off their cells' middles."""
CANDIDATES = 32
"""Curves drawn at once, of which the first that fits is taken."""
MOST_TRIES = 200
"""Scenes begun for a sample before its dials count as impossible."""
UNLIKE = 0.15
"""Relative difference allowed between the distance of the ends of one curve and that of the marked ends of two."""
SHORTER = 0.5
"""Length of a distractor over that of the two curves."""


@dataclass(frozen=True, kw_only=True)
class Contour(Probe):
    """Class 1 marks both ends of one dashed curve, class 0 one end each of two: both classes have the same pictures.

    The heading of a curve is a random walk, so that it is smooth. Two curves are alike; distractors are half as long.
    Different curves keep further apart than the dashes of one, so that the oracle, which joins drawn cells that are no
    further apart than dashes are, is exact. In each scene the marked ends of class 0 are about as far apart as those of
    class 1 would be, so that the distance of the marks tells nothing. One channel holds the curves, one the marks.

    Attributes:
        length: of the curves, in cells.
        dash, gap: lengths of the dashes and between them, in cells along the curve.
        bend: standard deviation of the change of heading along one cell, in radians; along L cells √L times as much.
        distractors: further curves.
        noise: every cell of the curves' channel is changed by a uniform number between -noise and noise. It stays below
            one half, so that a threshold removes it.

    Raises:
        InputError: also when a sample is drawn, if so many curves of this length do not fit.

    Source:
        After Pathfinder: D. Linsley, J. Kim, V. Veerabadran, C. Windolf, T. Serre, Learning long-range spatial
        dependencies with horizontal gated recurrent units, NeurIPS 2018 (arXiv 1805.08315).
    """

    name: ClassVar[str] = "contour"
    kind: ClassVar[Kind] = "image_class"
    isolates: ClassVar[str] = "grouping over long distances by local cues"
    difficulties: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"grid": 16, "length": 10.0, "gap": 0.0},
        {"grid": 24, "length": 18.0, "gap": 1.0},
        {"grid": 32, "length": 24.0, "gap": 2.0, "distractors": 2},
        {"grid": 32, "length": 24.0, "gap": 2.0, "distractors": 2, "noise": 0.4},
        {"grid": 64, "length": 48.0, "gap": 3.0, "distractors": 4, "bend": 0.12, "noise": 0.4},
    )
    depth: ClassVar[int] = 4
    positions: ClassVar[str] = "learned"

    grid: int = 32
    length: float = 24.0
    dash: float = 3.0
    gap: float = 2.0
    bend: float = 0.16
    distractors: int = 0
    noise: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("probe.length", self.length, least=2, most=4 * self.grid)
        check_number("probe.dash", self.dash, least=1, most=self.length)
        check_number("probe.gap", self.gap, least=0, most=self.length)
        check_number("probe.bend", self.bend, least=0, most=1)
        check_number("probe.distractors", self.distractors, least=0, most=self.grid, integer=True)
        check_number("probe.noise", self.noise, least=0, most=0.49)

    @property
    def channels(self) -> int:
        return 2

    @property
    def outputs(self) -> int:
        return 2

    @property
    def clearance(self) -> float:
        """Least distance between cells of different curves; cells of neighbouring dashes are closer."""
        return max(self.gap + NEAR, 2.0)

    def draw(self, rng: np.random.Generator) -> Sample:
        curves, ends = self.scene(rng)
        same = int(rng.integers(2))
        planes = np.zeros((2, self.grid, self.grid), np.float32)
        for curve in curves:
            drawn = np.arange(len(curve)) * STEP % (self.dash + self.gap) < self.dash
            drawn[-1] = True
            planes[0][_cells(curve[drawn])] = 1
        planes[0] += rng.uniform(-self.noise, self.noise, planes[0].shape)
        marked = curves[0][[0, -1]] if same else np.stack([curves[0][ends[0]], curves[1][ends[1]]])
        planes[1][_cells(marked)] = 1
        return Sample(planes, np.asarray(same, np.int64))

    def scene(self, rng: np.random.Generator) -> tuple[list[Curve], tuple[int, int]]:
        """Curves, the two alike ones first; and which end (0 or -1) of either is marked in class 0."""
        for _ in range(MOST_TRIES):
            first = self._clear(rng, [], self.length)[:1]
            second = self._clear(rng, first, self.length)
            pairs = [(one, other, ends) for one in first for other in second for ends in _as_far(one, other)]
            if not pairs:
                continue
            *curves, ends = pairs[0]
            for _ in range(self.distractors):
                curves += self._clear(rng, curves, SHORTER * self.length)[:1]
            if len(curves) == 2 + self.distractors:
                return curves, ends
        raise InputError(
            f"probe.distractors={self.distractors}: two curves of probe.length={self.length:g} and so many of half "
            f"of it did not fit {self.grid}×{self.grid} cells in {MOST_TRIES} tries"
        )

    def _clear(self, rng: np.random.Generator, others: list[Curve], length: float) -> list[Curve]:
        """Those of some curves, drawn independently, that fit the canvas and keep clear of others."""
        count = round(length / STEP) + 1
        turns = rng.normal(0, self.bend * np.sqrt(STEP), (CANDIDATES, count)).cumsum(axis=1)
        heading = rng.uniform(0, 2 * np.pi, (CANDIDATES, 1)) + turns
        paths = STEP * np.stack([np.sin(heading), np.cos(heading)], axis=-1).cumsum(axis=1)
        low, high = paths.min(axis=1), paths.max(axis=1)
        room = self.grid - 1 - (high - low)
        start = rng.uniform(size=room.shape) * room - low
        paths = (paths + start[:, None])[(room >= 0).all(axis=1)]
        if others:
            canvas = np.ones((self.grid, self.grid), bool)
            canvas[_cells(np.concatenate(others))] = False
            distance = ndimage.distance_transform_edt(canvas)
            paths = paths[distance[_cells(paths)].min(axis=1) >= self.clearance]
        return list(paths)

    def solve(self, samples: Samples) -> Array:
        return np.array([self._joined(*planes) for planes in samples.input], np.int64)

    def _joined(self, curves: Array, marks: Array) -> bool:
        """Whether steps between drawn cells, each shorter than the clearance, lead from one mark to the other."""
        cells = np.argwhere(curves > 0.5)
        one, other = KDTree(cells).query_pairs(self.clearance - 1e-9, output_type="ndarray").T
        graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(cells), len(cells)))
        _, group = csgraph.connected_components(graph, directed=False)
        first, second = (group[(cells == mark).all(axis=1)] for mark in np.argwhere(marks))
        return bool(first == second)


def _cells(points: Curve) -> tuple[Array, Array]:
    """Rows and columns of the cells that hold points (…, 2)."""
    cells = np.rint(points).astype(np.int64)
    return cells[..., 0], cells[..., 1]


def _as_far(one: Curve, other: Curve) -> list[tuple[int, int]]:
    """Ends (0 or -1) of both curves that are about as far apart as the two ends of `one` are, closest first."""
    own = np.linalg.norm(one[0] - one[-1])
    off = {(i, j): float(abs(np.linalg.norm(one[i] - other[j]) - own)) for i in (0, -1) for j in (0, -1)}
    return sorted((ends for ends in off if off[ends] <= UNLIKE * own), key=off.__getitem__)
