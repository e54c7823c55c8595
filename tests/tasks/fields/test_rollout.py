"""Rollouts: their errors by hand, and their picture."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.fields.rollout import Rollout


@pytest.fixture
def rollout() -> Rollout:
    """Two trajectories of three steps, each state of mean 0 and variance 1; forecasts are wrong by a tenth a step."""
    state = np.tile([[1.0, -1.0], [-1.0, 1.0]], (4, 4))
    true = np.stack([np.stack([state[None], -state[None], state[None]])] * 2)
    wrong = np.array([0.1, 0.2, 0.3])[:, None, None, None]
    return Rollout(true, true + wrong, true[:, 0], ["height"], ["m"], "a title")


def test_errors_by_hand(rollout: Rollout, tmp_path: Path) -> None:
    forecast, still = rollout.errors()
    np.testing.assert_allclose(forecast, [0.1, 0.2, 0.3], rtol=1e-6)
    np.testing.assert_allclose(still, [0, 2, 0], rtol=1e-6)
    assert rollout.scores() == {"rollout_vrmse": forecast.mean(), "rollout_persistence_vrmse": still.mean()}
    rollout.write(tmp_path)
    rows = list(csv.DictReader((tmp_path / "rollout.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    np.testing.assert_allclose([float(row["vrmse"]) for row in rows], forecast)
    np.testing.assert_allclose([float(row["persistence_vrmse"]) for row in rows], still)


def test_the_picture_shows_what_the_forecast_does(rollout: Rollout, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pictures = []
    for value in (0.5, 1.5, np.nan):
        rollout.predicted[0, 2] = value
        rollout.draw(tmp_path / "rollout.png")
        pictures.append(np.asarray(Image.open(tmp_path / "rollout.png")))
    for other in pictures[1:]:
        assert other.shape == pictures[0].shape
        assert (other != pictures[0]).mean() > 0.01
