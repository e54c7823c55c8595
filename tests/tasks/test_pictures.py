"""Sheets show every image where it belongs, and films have all their frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks import pictures


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_shows_every_image_where_it_belongs(channels: int, tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (5, channels, 4, 6), dtype=np.uint8)
    page = pictures.sheet(drawn, 2)
    assert page.shape == (3 * 5, 2 * 7, 3)
    shown: Callable[[int, int], Any] = lambda row, column: page[row * 5 : row * 5 + 4, column * 7 : column * 7 + 6]  # noqa: E731
    for number in range(5):
        assert np.array_equal(shown(*divmod(number, 2)), np.broadcast_to(drawn[number].transpose(1, 2, 0), (4, 6, 3)))
    assert not shown(2, 1).any()
    pictures.write_sheet(tmp_path / "sheet.png", drawn, np.array([4, 2, 4, 4, 2]))
    times = pictures.SMALL // 6
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.size == (pictures.EXAMPLES * 7 * times, 2 * 5 * times)
        first = np.asarray(picture)[: 4 * times : times, : 6 * times : times]
    assert np.array_equal(first, np.broadcast_to(drawn[1].transpose(1, 2, 0), (4, 6, 3)))


def test_a_film_has_its_frames_and_stops_for_a_while(tmp_path: Path) -> None:
    frames = list(np.random.default_rng(0).integers(0, 256, (4, 3, 1, 8, 8), dtype=np.uint8))
    pictures.write_film(tmp_path / "film.gif", frames)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 4  # type: ignore[attr-defined]
        film.seek(3)
        assert film.info["duration"] == 2000
