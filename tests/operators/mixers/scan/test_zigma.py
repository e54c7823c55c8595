"""`zigma` against its definition by loops, along the eight zigzags."""

import pytest

import operators
from operators import InputError
from operators.scan import orders
from operators.testing.cases import run
from operators.testing.checks import assert_close
from tests.operators.mixers.drawn import image, make
from tests.operators.mixers.scan.plain import assert_defined_by, on_grid, plain


def zigzag(number, height, width):
    """Places of a snake from one of four corners, along rows or columns."""
    corner, along_columns = divmod(number, 2)
    rows, columns = range(height)[:: -1 if corner >= 2 else 1], range(width)[:: -1 if corner % 2 else 1]
    if along_columns:
        return [(i, j) for turn, j in enumerate(columns) for i in rows[:: -1 if turn % 2 else 1]]
    return [(i, j) for turn, i in enumerate(rows) for j in columns[:: -1 if turn % 2 else 1]]


@pytest.mark.parametrize(("number", "conv"), [(0, 4), (3, None), (6, 2)])
def test_outputs_and_gradients_are_those_of_the_definition(number, conv):
    mixer = make("zigma", order=f"zigzag_{number}", state_dim=2, conv=conv)

    def mixed(x):
        places = zigzag(number, *x.shape[:2])
        scanned = plain(mixer.core.branches[0], [x[place] for place in places])
        return on_grid(dict(zip(places, scanned, strict=True)), *x.shape[:2])

    assert_defined_by(mixer, mixed, image(3, 4, batch=1))


def test_each_zigzag_is_the_first_one_of_the_image_turned_or_mirrored():
    """On a square: the schedule over depth is an orbit of the square's symmetries, with the same parameters."""
    x, first = image(4, 4), make("zigma")
    seen = []
    for number, name in enumerate(orders.ZIGZAG8):
        mixer = make("zigma", order=name)
        mixer.load_state_dict(first.state_dict())
        corner, along_columns = divmod(number, 2)
        flips = [axis for axis, flipped in ((1, corner >= 2), (2, corner % 2)) if flipped]
        moved = x.flip(flips).transpose(1, 2) if along_columns else x.flip(flips)
        y = run(first, moved.contiguous())
        y = (y.transpose(1, 2) if along_columns else y).flip(flips)
        assert_close(run(mixer, x), y, 1e-12, name)
        seen.append(y)
    assert len({tuple(y.flatten().tolist()) for y in seen}) == 8


def test_refusals():
    with pytest.raises(InputError, match=r"scan order 'zigzag_8' is not known"):
        operators.create("zigma", 8, order="zigzag_8")
    with pytest.raises(InputError, match=r"mixer\.conv=-1 must be an integer >= 0"):
        operators.create("zigma", 8, conv=-1)
