"""Distances through the free cells of a grid, from each cell to its neighbours above, below, left and right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csgraph

Cells = npt.NDArray[np.bool_]


def steps(free: Cells, *starts: tuple[int, int]) -> npt.NDArray[np.float64]:
    """The lengths of the shortest paths from S starts to each cell (S, H, W); infinite where no path leads."""
    number = np.arange(free.size).reshape(free.shape)
    across, down = free[:, :-1] & free[:, 1:], free[:-1] & free[1:]
    one = np.concatenate([number[:, :-1][across], number[:-1][down]])
    other = np.concatenate([number[:, 1:][across], number[1:][down]])
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(free.size, free.size)).tocsr()
    lengths = csgraph.dijkstra(graph, directed=False, indices=[number[start] for start in starts], unweighted=True)
    return np.asarray(lengths).reshape(-1, *free.shape)


def cell_of(marks: npt.NDArray[np.float32]) -> tuple[int, int]:
    """Row and column of the largest value of `marks` (H, W)."""
    row, column = np.unravel_index(marks.argmax(), marks.shape)
    return int(row), int(column)
