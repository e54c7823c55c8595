"""The maze probe."""

import networkx as nx
import numpy as np
import pytest

from operators.errors import InputError
from tasks.probes.draws import draw
from tasks.probes.grouping.maze import Maze


def graph_of(free):
    """The free cells and which of them touch."""
    graph = nx.grid_2d_graph(*free.shape)
    graph.remove_nodes_from([tuple(cell) for cell in np.argwhere(~free)])
    return graph


def without_dead_ends(free):
    """What is left if dead ends but the two corners are filled again and again."""
    graph, corners = graph_of(free), {(0, 0), (len(free) - 1, len(free) - 1)}
    while ends := [cell for cell, degree in graph.degree if degree < 2 and cell not in corners]:
        graph.remove_nodes_from(ends)
    return set(graph.nodes)


def cells(plane):
    return {tuple(cell) for cell in np.argwhere(plane)}


def test_a_maze_is_a_tree_of_all_rooms_and_the_label_is_its_path():
    samples = draw(Maze(grid=11), "test", range(20))
    for (free, start, end), target, mask in zip(samples.input, samples.target, samples.mask, strict=True):
        np.testing.assert_array_equal(mask, free == 1)
        assert nx.is_tree(graph_of(mask))
        assert mask[::2, ::2].all()
        assert not mask[1::2, 1::2].any()
        assert (cells(start), cells(end)) == ({(0, 0)}, {(10, 10)})
        assert cells(target) == without_dead_ends(mask)


def test_loops_are_doors_more_and_all_shortest_paths_count():
    samples, ties = draw(Maze(grid=9, loops=5), "test", range(30)), 0
    for mask, target in zip(samples.mask, samples.target, strict=True):
        graph = graph_of(mask)
        assert graph.number_of_edges() - graph.number_of_nodes() + 1 == 5
        paths = list(nx.all_shortest_paths(graph, (0, 0), (8, 8)))
        assert cells(target) == {cell for path in paths for cell in path}
        ties += len(paths) > 1
    assert ties > 0
    assert draw(Maze(grid=9, loops=16), "test", [0]).mask.sum() == 25 + 40  # every door is open


@pytest.mark.parametrize(("rooms", "length", "accuracy"), [(4, 17.9, 0.61), (8, 64.3, 0.51)])
def test_paths_are_as_long_as_measured_before(rooms, length, accuracy):
    """Against means of 300 other draws: four standard errors of the difference, and half a unit of rounding."""
    count, before, probe = 200, 300, Maze(grid=2 * rooms - 1)
    samples = draw(probe, "train", range(count))
    lengths = samples.target.sum(axis=(1, 2)) - 1
    assert abs(lengths.mean() - length) < 4 * lengths.std() * np.sqrt(1 / count + 1 / before) + 0.05
    measures = probe.measures(np.ones_like(samples.target), samples)
    per_cell = lengths.std() / (2 * rooms**2 - 1)
    assert abs(measures["accuracy"] - accuracy) < 4 * per_cell * np.sqrt(1 / count + 1 / before) + 0.005
    assert measures["exact_path"] == 0


def test_one_wrong_cell_spoils_a_path():
    probe = Maze(grid=7)
    samples = draw(probe, "test", range(4))
    answers = probe.solve(samples)
    answers[0][~samples.mask[0]] = 1  # walls do not count
    assert probe.measures(answers, samples) == {"accuracy": 1, "exact_path": 1}
    answers[2, 0, 0] = 0
    assert probe.measures(answers, samples)["exact_path"] == 0.75


def test_refusals():
    with pytest.raises(InputError, match=r"^probe\.grid=8 must be odd"):
        Maze(grid=8)
    with pytest.raises(InputError, match=r"^probe\.loops=10 must be an integer >= 0 and <= 9"):
        Maze(grid=7, loops=10)
