import itertools

import pytest
import torch

from operators import InputError
from operators.scan import orders
from operators.testing.checks import assert_close

GRIDS = [(4, 4), (8, 8), (5, 7), (7, 5), (6, 9), (1, 6), (6, 1), (1, 1), (2, 2)]
FLIPS = [[], [0], [1], [0, 1]]


def numbers(height, width):
    return torch.arange(height * width).view(height, width)


def order(name, *grid):
    return orders.permutation(name, *grid)


def steps(name, *grid):
    """Grid distance (city block) between successive tokens."""
    tokens = order(name, *grid)
    places = torch.stack([tokens // grid[1], tokens % grid[1]], dim=1)
    return places.diff(dim=0).abs().sum(1)


def image(*grid, width=3, batch=2, requires_grad=False):
    return torch.randn(batch, *grid, width, dtype=torch.float64, requires_grad=requires_grad)


NUMBERED = ["window_1", "window_3", "window_100_r", "window_snake_2", "atrous_3", "atrous_50", "random_7"]


@pytest.mark.parametrize("name", [*orders.names(), *NUMBERED])
def test_each_order_visits_every_token_once_and_has_its_inverse(name):
    for grid in GRIDS:
        tokens, back = order(name, *grid), orders.inverse(name, *grid)
        everyone = torch.arange(grid[0] * grid[1])
        assert tokens.dtype == back.dtype == torch.int64
        assert torch.equal(tokens.sort().values, everyone), grid
        assert torch.equal(tokens[back], everyone), grid
        assert torch.equal(back[tokens], everyone), grid


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in [*orders.names(), *NUMBERED] if not name.endswith("_r")])
def test_each_order_is_a_permutation_of_every_grid_up_to_17(name):
    for grid in itertools.product(range(1, 18), repeat=2):
        tokens, everyone = order(name, *grid), torch.arange(grid[0] * grid[1])
        assert torch.equal(tokens.sort().values, everyone), grid
        assert torch.equal(tokens[orders.inverse(name, *grid)], everyone), grid
        if name.startswith(("snake", "zigzag", "spiral")):
            assert (steps(name, *grid) == 1).all(), grid
        if name.startswith("diag"):
            assert (steps(name, *grid) <= 2).all(), grid


@pytest.mark.parametrize("name", [name for name in orders.names() if not name.endswith("_r")])
def test_the_suffix_reverses(name):
    assert torch.equal(order(f"{name}_r", 5, 7), order(name, 5, 7).flip(0))
    assert orders.base(name) == (name, False)
    assert orders.base(f"{name}_r") == (name, True)


def test_rows_and_columns():
    assert order("row", 2, 3).tolist() == [0, 1, 2, 3, 4, 5]
    assert order("col", 2, 3).tolist() == [0, 3, 1, 4, 2, 5]
    assert order("row_r", 2, 3).tolist() == [5, 4, 3, 2, 1, 0]
    assert order("col_r", 2, 3).tolist() == [5, 2, 4, 1, 3, 0]


def test_orders_that_are_drawn_here():
    """Steps at which each token is visited."""
    drawn = {
        "snake_row": [[0, 1, 2, 3], [7, 6, 5, 4], [8, 9, 10, 11]],
        "snake_col": [[0, 5, 6, 11], [1, 4, 7, 10], [2, 3, 8, 9]],
        "diag": [[0, 1, 5, 6], [2, 4, 7, 10], [3, 8, 9, 11]],
        "diag_mirror": [[6, 5, 1, 0], [10, 7, 4, 2], [11, 9, 8, 3]],
        "spiral": [[0, 1, 2, 3], [9, 10, 11, 4], [8, 7, 6, 5]],
        "spiral_mirror": [[3, 2, 1, 0], [4, 11, 10, 9], [5, 6, 7, 8]],
        "spiral_flip": [[8, 7, 6, 5], [9, 10, 11, 4], [0, 1, 2, 3]],
        "window_2": [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 10, 11]],
        "window_3": [[0, 1, 2, 9], [3, 4, 5, 10], [6, 7, 8, 11]],
        "window_snake_2": [[0, 1, 4, 5], [3, 2, 7, 6], [10, 11, 8, 9]],
        "atrous_2": [[0, 4, 1, 5], [8, 10, 9, 11], [2, 6, 3, 7]],
        "morton": [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 10, 11]],
        "bit_reversal": [[0, 6, 3, 9], [2, 8, 5, 11], [1, 7, 4, 10]],
    }
    for name, picture in drawn.items():
        assert orders.inverse(name, 3, 4).view(3, 4).tolist() == picture, name
    assert orders.inverse("atrous_turned_2", 4, 4).view(4, 4).tolist() == [
        [0, 4, 1, 5],
        [8, 12, 10, 14],
        [2, 6, 3, 7],
        [9, 13, 11, 15],
    ]
    assert orders.inverse("hilbert", 4, 4).view(4, 4).tolist() == [
        [0, 1, 14, 15],
        [3, 2, 13, 12],
        [4, 7, 8, 11],
        [5, 6, 9, 10],
    ]


@pytest.mark.parametrize("name", ["snake_row", "snake_col", *orders.ZIGZAG8, "spiral", "spiral_mirror", "spiral_flip"])
def test_successive_tokens_are_neighbours(name):
    for grid in [(4, 4), (5, 7), (8, 3), (1, 5), (5, 1)]:
        assert (steps(name, *grid) == 1).all(), grid


@pytest.mark.parametrize("name", ["snake_row", "snake_col_r", "spiral"])
@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (1, 5), (5, 1), (1, 1)], ids=str)
def test_directions_lead_from_one_token_to_the_next(name, grid):
    moves = {"start": (0, 0), "right": (0, 1), "left": (0, -1), "up": (-1, 0), "down": (1, 0)}
    visited = [divmod(token, grid[1]) for token in order(name, *grid).tolist()]
    taken = [orders.DIRECTIONS[number] for number in orders.directions((name,), *grid)[0].tolist()]
    assert [index for index, direction in enumerate(taken) if direction == "start"] == [0]
    for before, after, direction in zip(visited, visited[1:], taken[1:], strict=False):
        assert after == (before[0] + moves[direction][0], before[1] + moves[direction][1])


def test_ways_gather_and_scatter_as_each_order_by_itself():
    x = torch.randn(2, 4, 5, 3)
    names = ("row", "hilbert", "col", "spiral", "window_2")
    ways = orders.Ways(names, 4, 5, x.device)
    for name in names:
        assert torch.equal(ways.gather(x, name), orders.gather(x, name))
        assert torch.equal(ways.scatter(ways.gather(x, name), name), x)


def test_an_order_that_jumps_has_no_directions():
    with pytest.raises(InputError, match=r"scan order 'row' jumps on a grid of 2 × 3: its steps have no directions"):
        orders.directions(("snake_row", "row"), 2, 3)
    assert orders.directions(("row", "row_r"), 1, 3).tolist() == [[0, 1, 1], [0, 2, 2]]


def test_successive_tokens_of_hilberts_curve_are_neighbours_on_squares_of_powers_of_two():
    for side in (1, 2, 4, 8, 16, 32):
        assert (steps("hilbert", side, side) == 1).all()
    assert steps("hilbert", 5, 7).max() > 1


def test_hilberts_curve_on_a_smaller_grid_is_the_large_one_without_what_lies_outside():
    large = order("hilbert", 8, 8)
    rows, columns = large // 8, large % 8
    inside = (rows < 5) & (columns < 7)
    assert torch.equal(order("hilbert", 5, 7), (rows * 7 + columns)[inside])


def test_gilberts_curve_of_any_rectangle_has_at_most_one_diagonal_step():
    for height, width in itertools.product(range(1, 18), repeat=2):
        longer, shorter = max(height, width), min(height, width)
        cut = longer % 2 == 1 and shorter % 2 == 0 and shorter > 2
        lengths = steps("gilbert", height, width)
        assert (lengths > 1).sum() == cut, (height, width)
        assert (lengths <= 2).all(), (height, width)
        assert order("gilbert", height, width)[0] == 0


def test_gilberts_curve_of_a_square_of_side_2_to_the_k_is_hilberts():
    for side in (2, 4, 8, 16):
        assert torch.equal(order("gilbert", side, side), order("hilbert", side, side)) or torch.equal(
            orders.inverse("gilbert", side, side).view(side, side).T.flatten(), orders.inverse("hilbert", side, side)
        )


def test_peanos_curve_is_its_definition_on_thirds_and_cut_elsewhere():
    assert orders.inverse("peano", 3, 3).tolist() == [0, 1, 2, 5, 4, 3, 6, 7, 8]
    for side in (1, 3, 9, 27):
        assert (steps("peano", side, side) == 1).all()
    for block in order("peano", 9, 9).view(9, 9):
        assert (block // 9 // 3).unique().numel() == (block % 9 // 3).unique().numel() == 1
    large = order("peano", 9, 9)
    rows, columns = large // 9, large % 9
    inside = (rows < 5) & (columns < 7)
    assert torch.equal(order("peano", 5, 7), (rows * 7 + columns)[inside])


@pytest.mark.parametrize(
    ("name", "figures"),  # mean, median and largest distance along the order of neighbours on the grid
    [
        ("row", (7.5, 7.5, 14)),
        ("snake_row", (7.5, 1, 27)),
        ("diag", (9.5, 8, 26)),
        ("spiral", (16.6, 1, 51)),
        ("morton", (7.7, 2, 70)),
        ("hilbert", (9.1, 1, 161)),
        ("gilbert", (8.8, 1, 155)),
        ("peano", (9.5, 1, 111)),
    ],
)
def test_how_far_apart_neighbours_are_along_an_order(name, figures):
    rank = orders.inverse(name, 14, 14).view(14, 14).double()
    apart = torch.cat([rank.diff(dim=axis).abs().flatten() for axis in (0, 1)])
    measured = apart.mean().item(), apart.quantile(0.5).item(), apart.max().item()
    assert measured == pytest.approx(figures, abs=0.05)


def test_shuffles_differ_by_their_seed_alone():
    assert not torch.equal(order("random_0", 5, 7), order("random_1", 5, 7))
    state = torch.get_rng_state()
    shuffled = order("random_3", 6, 7)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(shuffled, torch.randperm(42, generator=torch.Generator().manual_seed(3)))


def test_hilberts_curve_stays_in_each_quarter_until_it_is_full():
    for quarter in order("hilbert", 16, 16).view(16, 16):
        rows, columns = quarter // 16, quarter % 16
        assert (rows // 4).unique().numel() == (columns // 4).unique().numel() == 1


def test_diagonals_are_visited_one_after_another_in_alternating_direction():
    tokens = order("diag", 5, 7)
    rows, columns = tokens // 7, tokens % 7
    diagonals = (rows + columns).diff()
    assert set(diagonals.tolist()) == {0, 1}
    within = rows.diff()[diagonals == 0]
    assert torch.equal(within, torch.where((rows + columns)[1:][diagonals == 0] % 2 == 0, -1, 1))


@pytest.mark.parametrize("side", [2, 3, 7])
def test_windows_are_filled_one_by_one_row_by_row(side):
    tokens = order(f"window_{side}", 8, 9)
    rows, columns = tokens // 9, tokens % 9
    window = rows // side * 9 + columns // side
    assert (window.diff() >= 0).all()
    same = window.diff() == 0
    assert (tokens.diff()[same] > 0).all()


def test_windows_at_both_ends_are_rows():
    assert torch.equal(order("window_1", 5, 7), order("row", 5, 7))
    assert torch.equal(order("window_7", 5, 7), order("row", 5, 7))


def test_zigzags_are_the_orbit_of_one_under_the_symmetries_of_the_square():
    grid = numbers(6, 6)
    symmetries = [turned.flip(axes) for turned in (grid, grid.T) for axes in FLIPS]
    orbit = {tuple(symmetry.flatten()[order("zigzag_0", 6, 6)].tolist()) for symmetry in symmetries}
    assert orbit == {tuple(order(name, 6, 6).tolist()) for name in orders.ZIGZAG8}
    assert len(orbit) == 8


def test_zigzags_start_in_the_corners_along_rows_and_columns_in_turn():
    corners = [0, 0, 6, 6, 28, 28, 34, 34]
    strides = [1, 7, -1, 7, 1, -7, -1, -7]
    for name, corner, stride in zip(orders.ZIGZAG8, corners, strides, strict=True):
        tokens = order(name, 5, 7)
        assert (tokens[0], tokens[1] - tokens[0]) == (corner, stride)
    assert torch.equal(order("zigzag_0", 5, 7), order("snake_row", 5, 7))
    assert torch.equal(order("zigzag_1", 5, 7), order("snake_col", 5, 7))


# ---------------------------------------------------------------- sequences


@pytest.mark.parametrize("name", orders.names())
def test_gather_reads_in_order_and_scatter_undoes_it(name):
    for grid in [(4, 4), (5, 7), (1, 3)]:
        x = image(*grid)
        sequence = orders.gather(x, name)
        assert torch.equal(sequence, x.flatten(1, 2)[:, order(name, *grid)]), grid
        assert torch.equal(orders.scatter(sequence, name, *grid), x), grid


@pytest.mark.parametrize("name", orders.names())
def test_gradients_go_back_where_they_came_from(name):
    x, weight = image(4, 5, requires_grad=True), torch.randn(2, 20, 3, dtype=torch.float64)
    (orders.gather(x, name) * weight).sum().backward()
    assert torch.equal(x.grad, orders.scatter(weight, name, 4, 5))
    y, weight = torch.randn(2, 20, 3, dtype=torch.float64, requires_grad=True), image(4, 5)
    (orders.scatter(y, name, 4, 5) * weight).sum().backward()
    assert torch.equal(y.grad, orders.gather(weight, name))


def test_rows_are_views_and_columns_where_they_are_stored_together():
    x = image(5, 7)
    stored_by_columns = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert orders.gather(x, "row").data_ptr() == x.data_ptr()
    assert orders.gather(stored_by_columns, "col").data_ptr() == stored_by_columns.data_ptr()
    sequence = orders.gather(x, "col")
    for name in ("row", "col"):
        assert orders.scatter(sequence, name, 5, 7).data_ptr() == sequence.data_ptr()
    assert orders.scatter(sequence, "col", 5, 7).stride() == (105, 3, 15, 1)


# ---------------------------------------------------------------- cache, devices, compiler


def test_orders_are_made_once():
    for made in (orders.permutation, orders.inverse):
        assert made("hilbert", 9, 9) is made("hilbert", 9, 9, torch.device("cpu"))


def test_an_order_is_an_ordinary_tensor_whoever_asks_for_it_first():
    with torch.inference_mode():
        tokens = order("spiral", 11, 3)
    with torch.device("meta"):
        assert order("spiral", 3, 11).device.type == "cpu"
    assert not tokens.is_inference()
    x = image(11, 3, requires_grad=True)
    orders.gather(x, "spiral").sum().backward()
    assert_close(x.grad, torch.ones_like(x), 0, "gradient")
    assert orders.gather(image(11, 3).to("meta"), "spiral").shape == (2, 33, 3)
    assert orders.permutation("spiral", 11, 3, "meta").device.type == "meta"


@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings(r"ignore:The \.grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiles_without_a_break_for_a_grid_and_with_one_for_any(dynamic):
    def there_and_back(x):
        return orders.scatter(2 * orders.gather(x, "hilbert"), "hilbert", *x.shape[1:3])

    torch._dynamo.reset()
    compiled = torch.compile(there_and_back, backend="aot_eager", dynamic=dynamic, fullgraph=not dynamic)
    for grid in [(5, 7), (4, 9)]:
        x = image(*grid, requires_grad=True)
        y = compiled(x)
        y.sum().backward()
        assert torch.equal(y, 2 * x)
        assert torch.equal(x.grad, torch.full_like(x, 2))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rwo", r"scan order 'rwo' is not known: allowed are row, col, .* window_S.*; did you mean 'row"),
        ("hilbret_r", r"did you mean 'hilbert_r'"),
        ("zigzag_8", r"did you mean 'zigzag_"),
        ("window_0", r"number in the scan order window_S=0 must be an integer >= 1"),
        ("window_-3", r"'window_-3' is not known"),
        ("row_r_r", r"'row_r_r' is not known"),
    ],
)
def test_unknown_orders_are_refused_in_one_line_with_the_nearest_name(name, message):
    for call in (lambda: order(name, 4, 4), lambda: orders.base(name), lambda: orders.gather(image(4, 4), name)):
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_impossible_grids_are_refused():
    with pytest.raises(InputError, match=r"height of a scan order=0 must be an integer >= 1"):
        order("row", 0, 4)
    with pytest.raises(InputError, match=r"19 tokens does not fill a grid of 4 × 5"):
        orders.scatter(torch.zeros(2, 19, 3), "hilbert", 4, 5)
