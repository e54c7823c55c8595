"""Widths that a budget of time means: the solver with clocks that are known, and once with the real one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablations.scheduling import matches
from operators import InputError
from tasks.config.composition import compose, read
from tasks.costs import match
from tasks.planning import plan
from tests.tasks.conftest import TINY, Fit

TIMED = (*TINY, "model.match={time: 20ms}")


class FakeClock:
    """Steps of a machine whose law is known, with noise, and a speed that drifts from call to call."""

    def __init__(self, law: Callable[[int], float], noise: float = 0.0, drift: float = 0.0) -> None:
        self._law, self._noise, self._drift = law, noise, drift
        self._draw = np.random.default_rng(0)
        self.asked: list[tuple[int, ...]] = []

    def __call__(self, widths: Sequence[int], rounds: int) -> Mapping[int, Sequence[float]]:
        self.asked.append(tuple(widths))
        speed = 1 + self._drift * len(self.asked)
        return {
            width: [float(self._law(width) * speed * np.exp(self._noise * self._draw.normal())) for _ in range(rounds)]
            for width in widths
        }


def affine(width: int) -> float:
    return 0.010 + 2e-5 * width


@pytest.mark.parametrize("target", [0.0102, 0.012, 0.0184, 0.03, 0.09])
def test_width_meets_the_time(target: float) -> None:
    clock = FakeClock(affine)
    width = match.solve(target, clock, most=4096, start=256)
    assert width % 8 == 0
    assert abs(affine(width) - target) <= max(0.01 * target, 4 * 2e-5)
    assert len(clock.asked) <= 5


def test_steps_of_the_law_do_not_mislead() -> None:
    """A step takes as long for every width up to the next multiple of 128, as on devices with tiles."""

    def tiled(width: int) -> float:
        return 0.005 + 1e-3 * -(-width // 128)

    width = match.solve(0.0125, FakeClock(tiled), most=4096, start=256)
    assert abs(tiled(width) - 0.0125) <= 0.5e-3 + 1e-9


def test_noise_and_drift_leave_it_near() -> None:
    """With 5 % of noise in each step and a machine that slows down by 1 % with every look."""
    clock = FakeClock(affine, noise=0.05, drift=0.01)
    width = match.solve(0.02, clock, most=4096, start=256)
    assert abs(affine(width) / 0.02 - 1) < 0.12
    assert len(clock.asked) <= match.LOOKS + 1


def test_time_out_of_reach_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"time=5ms cannot be met .* nearest above is 10.2 ms \(model.hidden=8\)"):
        match.solve(0.005, FakeClock(affine), most=4096, start=256)
    with pytest.raises(InputError, match=r"nearest below is 91.9 ms \(model.hidden=4096\)"):
        match.solve(0.2, FakeClock(affine), most=4096, start=256)


class FakeLanes:
    """Stands for `match.WidthLanes`; counts how often anything is measured."""

    solved = 0
    dim, device_name = 64, "a clock"

    def __init__(self, run: Any) -> None:
        self.sample = FakeClock(affine)
        type(self).solved += 1


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch) -> type[FakeLanes]:
    monkeypatch.setattr(match, "WidthLanes", FakeLanes)
    monkeypatch.setattr(FakeLanes, "solved", 0)
    return FakeLanes


def test_run_measures_once_and_whoever_continues_it_never(fit: Fit, tmp_path: Path, lanes: type[FakeLanes]) -> None:
    metrics = fit("run", "model.match={time: 20ms}")
    assert lanes.solved == 1
    facts = {key.removeprefix("match/"): value for key, value in metrics.items() if key.startswith("match/")}
    assert facts == {
        "budget": "time", "target": 0.02, "hidden": 496, "value": pytest.approx(affine(496)),
        "residual": pytest.approx(affine(496) / 0.02 - 1), "low": pytest.approx(affine(496)),
        "high": pytest.approx(affine(496)), "repeats": match.LAST_ROUNDS, "device": "a clock",
    }  # fmt: skip
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert provenance["match"]["match/device"] == "a clock"
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    again = read([f"ckpt={last}", "model.match={time: 20ms}"])
    assert match.settle(again) is again
    assert again.model["hidden"] == 496
    assert read([f"ckpt={last}", "mode=test"]).model["match"]["measured"]["hidden"] == 496
    with pytest.raises(InputError, match="contradicts the checkpoint"):
        read([f"ckpt={last}", "model.match={time: 21ms}"])
    assert lanes.solved == 1


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[str]], dict[str, Any]]:
    """Composes what differs from one configuration without Hydra, which takes long."""
    base = compose(TIMED)

    def do(overrides: Sequence[str]) -> dict[str, Any]:
        config = deepcopy(base)
        for override in overrides:
            (group, key), value = override.split("=")[0].split("."), override.split("=")[1]
            config[group][key] = type(config[group][key])(value)
        return config

    monkeypatch.setattr(matches, "compose", do)
    return do


def test_study_measures_once_for_each_arm(
    tmp_path: Path, lanes: type[FakeLanes], composed: Callable[[Sequence[str]], dict[str, Any]]
) -> None:
    arms = ["mixer.size=3", "mixer.size=5"]
    trials = [(arm, f"optimizer.lr={rate}") for rate in (0.1, 0.2) for arm in arms]
    trials += [(arm, f"data.num_workers={seed}") for seed in (0, 1) for arm in arms]
    found = [matches.settled(composed(one), tmp_path, trials, lambda: None) for one in trials]
    assert lanes.solved == 2
    assert {config["model"]["hidden"] for config in found} == {496}
    assert len(json.loads((tmp_path / matches.FILE).read_text())) == 2
    other = matches.settled(composed(["data.batch_size=16"]), tmp_path, trials, lambda: None)
    assert (other["model"]["hidden"], lanes.solved) == (496, 3)
    assert matches.settled(found[0], tmp_path, trials, lambda: None) == found[0]


def test_worker_stops_between_measurements(
    tmp_path: Path, lanes: type[FakeLanes], composed: Callable[[Sequence[str]], dict[str, Any]]
) -> None:
    def look() -> None:
        if lanes.solved:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        matches.settled(composed([]), tmp_path, [["mixer.size=5"]], look)
    assert len(json.loads((tmp_path / matches.FILE).read_text())) == 1


def test_plan_says_what_it_would_do(lanes: type[FakeLanes]) -> None:
    notes = plan._notes(read([*TIMED, "mode=plan"]), "cpu", here=True)
    assert "model.match.time=20ms: a run first measures" in notes[0]
    assert lanes.solved == 0


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model.match={time: 20m}"], "must be a time, with s, ms or us"),
        (["model.match={time: 0}"], "must be a number >= 1e-06"),
        (["model.match={time: 20ms}", "model.hidden=8"], "exclude each other"),
        (["model.match={time: 20ms, measured: 3}"], "leave it out"),
        (["model.match={state: 4K, measured: 3}"], "goes with model.match.time"),
        (["model.match={time: 20ms, state: 4K}"], "must be one budget"),
    ],
)
def test_wrong_budget_is_refused(overrides: list[str], expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        read([*TINY, *overrides])
    assert "\n" not in str(caught.value)


def test_several_devices_are_refused() -> None:
    with pytest.raises(InputError, match="measured on one device"):
        match.settle(read([*TIMED, "trainer.devices=2"]))
    with pytest.raises(InputError, match="measures one device"):
        read([*TINY, "trainer.devices=2", "trainer.costs=true"])


@pytest.mark.slow
def test_real_clock_finds_a_width(fit: Fit) -> None:
    """The target lies far from both ends, so that a width is found whatever else the machine does; not how near."""
    wide = ("model.dim=64", "data.batch_size=64")
    samples = match.WidthLanes(read([*TINY, *wide])).sample([8, 4096], 5)
    least, most = (float(np.median(samples[width])) for width in (8, 4096))
    metrics = fit("run", *wide, f"model.match={{time: {(least * most) ** 0.5}}}")
    assert metrics["match/low"] <= metrics["match/value"] <= metrics["match/high"]
    assert metrics["match/hidden"] % 8 == 0
    assert 8 < metrics["match/hidden"] < 4096
