"""The forecast of fields as a probe."""

import json
from pathlib import Path

import numpy as np
import pytest

import run
from operators.errors import InputError
from tasks.fields.box import Box
from tasks.fields.equations import get
from tasks.fields.solver import trajectory
from tasks.probes.draws import draw
from tasks.probes.forecast.field_forecast import FieldForecast
from tasks.probes.probe import Samples

SMALL = {"grid": 16, "frames": 6, "trajectories": 4}


def test_a_target_follows_the_states_that_are_shown() -> None:
    probe = FieldForecast(equation="wave", history=3, **SMALL)
    states = np.stack([trajectory(get("wave"), Box(16), 6, seed=0, split="val", index=i) for i in range(4)])
    samples = draw(probe, "val", range(20))
    assert samples.input.shape == (20, 6, 16, 16)
    scales = []
    for given, target in zip(samples.input, samples.target, strict=True):
        window = np.concatenate([given, target]).reshape(4, 2, 16, 16)
        fits = [np.corrcoef(states[i, t : t + 4].ravel(), window.ravel())[0, 1] for i in range(4) for t in range(3)]
        place = divmod(int(np.argmax(fits)), 3)
        own = states[place[0], place[1] : place[1] + 4]
        scales.append(own.std(axis=(0, 2, 3)) / window.std(axis=(0, 2, 3)))
        np.testing.assert_allclose(np.corrcoef(own[:, 0].ravel(), window[:, 0].ravel())[0, 1], 1, atol=1e-6)
    np.testing.assert_allclose(scales, np.tile(scales[0], (20, 1)), rtol=1e-4)


@pytest.mark.parametrize("equation", ["burgers", "advection_diffusion"])
def test_the_oracle_forecasts_to_the_end_without_error(equation: str) -> None:
    probe = FieldForecast(equation=equation, boundary="reflecting", history=2, **SMALL)

    def oracle(shown: np.ndarray) -> np.ndarray:
        empty = np.zeros((len(shown), probe.outputs, 16, 16), np.float32)
        return probe.solve(Samples(shown, empty))

    rollout = probe.rollout(oracle)
    assert rollout.true.shape == rollout.predicted.shape == (4, 4, probe.outputs, 16, 16)
    forecast, still = rollout.errors()
    assert forecast.max() < 1e-4
    assert still.tolist() == sorted(still)
    assert still[0] > 0.05
    assert rollout.scores() == {"rollout_vrmse": forecast.mean(), "rollout_persistence_vrmse": still.mean()}


def test_persistence_and_the_mean_are_measured() -> None:
    probe = FieldForecast(equation="wave", **SMALL)
    test = draw(probe, "test", range(12))
    still = probe.measures(probe.shown(test), test)
    assert still["vrmse"] == still["persistence_vrmse"] > 0.3
    assert still["persistence"] == probe.error(probe.shown(test), test)
    mean = np.broadcast_to(test.target.mean(axis=(2, 3), keepdims=True), test.target.shape)
    assert probe.measures(mean, test)["vrmse"] == pytest.approx(1, abs=1e-4)
    assert probe.measures(probe.solve(test), test)["vrmse"] < 1e-5


def test_a_rollout_that_leaves_the_numbers_is_infinitely_wrong() -> None:
    probe = FieldForecast(equation="wave", **SMALL)
    scores = probe.rollout(lambda shown: np.full((len(shown), 2, 16, 16), np.nan, np.float32)).scores()
    assert scores["rollout_vrmse"] == np.inf


@pytest.mark.parametrize(
    ("dials", "message"),
    [
        ({"equation": "burger"}, "did you mean 'burgers'"),
        ({"boundary": "neumann"}, "periodic, reflecting"),
        ({"history": 20}, r"probe\.history=20 must be an integer >= 1 and <= 19"),
        ({"stride": 0.0}, r"probe\.stride=0\.0 must be a number"),
        ({"stride": 0.5, "data": "x"}, r"probe\.stride=0\.5 must be whole"),
    ],
)
def test_refusals(dials: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FieldForecast(**dials)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_leaves_its_rollout_and_learns_a_step(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    small = ["probe=field_forecast", "probe.grid=16", "probe.trajectories=8", "probe.frames=6", "mixer=pde_ssm"]
    small += ["model.dim=16", "model.depth=1", "data.train=256", "data.val=32", "data.test=32", "trainer.max_epochs=10"]
    small += ["data.batch_size=16", "optimizer.lr=0.01", "trainer.accelerator=cpu", "logger=none"]
    assert run.main([*small, f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test/oracle"] < 1e-10
    assert metrics["test/vrmse"] < metrics["test/persistence_vrmse"]
    assert metrics["test/rollout_vrmse"] < metrics["test/rollout_persistence_vrmse"]
    assert len((tmp_path / "run" / "rollout.csv").read_text().splitlines()) == 6
    assert (tmp_path / "run" / "rollout.png").stat().st_size > 10_000
