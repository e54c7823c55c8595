"""`model.match={time: 20ms}`: the width of the feed-forward networks at which a training step takes that long here.

The time of a step grows with the width, though not evenly, and every measurement is noise upon it. Candidates are
measured in turns, so that a change of the machine's speed meets all of them alike, and compared by their medians.
"""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Trainer

import tasks.data
from models.match import ALIGNMENT, WIDEST
from models.targets import MEASURED, TIME, asked, parse, unmeasured
from operators.benchmark.measuring.statistics import quartiles
from operators.errors import InputError
from tasks.config.schema import RunConfig
from tasks.costs.bench import StepBench
from tasks.run import building
from tasks.run.trainer import quiet
from tasks.system import results

CLOSE = 0.01
"""Distance from the target, as a share of it, at which no better width is looked for."""
TOLERANCE = 0.05
"""Where the widest or the narrowest model is further from the target than this, the budget is out of reach."""
LOOKS = 8
"""Widths that are measured at most, beside the first two."""
ROUNDS, LAST_ROUNDS = 5, 15
"""Steps of each candidate, and of the width that is chosen."""
LONGEST = 3.0
"""Seconds of one comparison, unless `LEAST` rounds take longer."""
LEAST = 3

Clock = Callable[[Sequence[int], int], Mapping[int, Sequence[float]]]
"""Widths and a number of rounds -> seconds of a training step at each width in each round."""


def wanted(config: Mapping[str, Any]) -> bool:
    """Whether a run's configuration, in plain containers, asks for a time for which nobody has measured yet."""
    return config.get("mode") == "fit" and unmeasured(config.get("model", {}).get("match"))


def settle(run: RunConfig) -> RunConfig:
    """`run` with the width that its budget of time means, if it asks for one, and with what was measured.

    Takes some seconds, or some twenty steps where these are long.

    Raises:
        InputError: the time is out of reach (names the nearest that is not), or the run has several devices.
    """
    if not wanted(run.plain):
        return run
    asks = run.trainer
    if (asks.devices, asks.num_nodes) != (1, 1):
        raise InputError(
            f"model.match.time is measured on one device, not with trainer.devices={asks.devices} and "
            f"trainer.num_nodes={asks.num_nodes}: measure with 1 of both, and give its model.hidden here"
        )
    _, target = asked(parse(run.model["match"]))
    lanes = WidthLanes(run)
    chosen = solve(target, lanes.sample, most=WIDEST * lanes.dim, start=4 * lanes.dim)
    samples = lanes.sample([chosen], LAST_ROUNDS)[chosen]
    low, median, high = quartiles(samples)
    measured = {
        "hidden": chosen,
        "seconds": median,
        "low": low,
        "high": high,
        "repeats": len(samples),
        "device": lanes.device_name,
    }
    spread = f"{1e3 * low:.4g} to {1e3 * high:.4g}, {len(samples)} steps"
    results.say(
        f"model.match.time={1e3 * target:g}ms: model.hidden={chosen} takes {1e3 * median:.4g} ms ({spread}) "
        f"on {lanes.device_name}"
    )
    return run.changed("model", {**run.model, "hidden": chosen, "match": {TIME: target, MEASURED: measured}})


def solve(target: float, clock: Clock, *, most: int, start: int) -> int:
    """The width, a multiple of 8, whose median time is nearest to the target.

    Args:
        target: seconds.
        clock: measures.
        most: largest width.
        start: a usual width.

    Raises:
        InputError: the target is below the time of the narrowest model or above that of the widest.
    """
    low, high = ALIGNMENT, max(2 * ALIGNMENT, start // ALIGNMENT * ALIGNMENT)
    times = _medians(clock([low, high], ROUNDS))
    if times[low] > target * (1 + TOLERANCE):
        raise InputError(_unreachable(target, "above", low, times[low]))
    for _ in range(LOOKS):
        best = min(times, key=lambda width: abs(times[width] - target))
        if abs(times[best] / target - 1) <= CLOSE:
            return best
        middle = _between(target, low, high, times, most)
        if middle in times:
            break
        # The old ends once more, in turns with the new width, in case the machine is slower or faster by now.
        times |= _medians(clock(sorted({low, middle, high}), ROUNDS))
        low, high = _bracket(target, times, low, middle, high)
    best = min(times, key=lambda width: abs(times[width] - target))
    if best == most and times[best] < target * (1 - TOLERANCE):
        raise InputError(_unreachable(target, "below", best, times[best]))
    return best


def _between(target: float, low: int, high: int, times: Mapping[int, float], most: int) -> int:
    """Where a line through two measured widths meets the target: inside them and off their ends, or above both."""
    slope = (times[high] - times[low]) / (high - low)
    exact = low + (target - times[low]) / slope if slope > 0 else math.inf
    if times[high] < target:
        return min(most, _aligned(min(max(exact, high + ALIGNMENT), 4 * high)))
    margin = (high - low) / 10
    return max(low, min(high, _aligned(min(max(exact, low + margin), high - margin))))


def _bracket(target: float, times: Mapping[int, float], low: int, middle: int, high: int) -> tuple[int, int]:
    """Two neighbouring widths with the target between them, or the two uppermost."""
    first, second, third = sorted({low, middle, high})
    return (first, second) if times[second] >= target else (second, third)


def _aligned(width: float) -> int:
    return ALIGNMENT * round(width / ALIGNMENT)


def _medians(samples: Mapping[int, Sequence[float]]) -> dict[int, float]:
    return {width: statistics.median(values) for width, values in samples.items()}


def _unreachable(target: float, side: str, width: int, seconds: float) -> str:
    return (
        f"model.match.time={1e3 * target:g}ms cannot be met by the width alone: the nearest {side} is "
        f"{1e3 * seconds:.3g} ms (model.hidden={width}), measured here; data.batch_size and model.depth change it"
    )


class WidthLanes:
    """The run's model at several widths on its device, measured in turns.

    Attributes:
        dim: of the model.
        device_name: for people.
    """

    def __init__(self, run: RunConfig) -> None:
        self._run = run.changed("model", {**run.model, "match": None})
        self._data = tasks.data.describe(**{"seed": run.seed, **run.data})
        self._coder = building.load_autoencoder(run.task, None)
        self._images = building.images_of(self._data, self._coder, None)
        with quiet():
            trainer = Trainer(
                accelerator=run.trainer.accelerator,
                devices=1,
                precision=run.trainer.precision,  # type: ignore[arg-type]
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
        self._precision, self._device = trainer.precision_plugin, trainer.strategy.root_device
        self.dim = self._run.build(self._images, device="meta").spec.dims[0]
        self.device_name = _name(self._device)
        self._benches: dict[int, StepBench] = {}

    def sample(self, widths: Sequence[int], rounds: int) -> dict[int, list[float]]:
        """Seconds of a step at each of the widths, round by round."""
        self._benches = {width: self._benches.get(width) or self._bench(width) for width in widths}
        samples: dict[int, list[float]] = {width: [] for width in widths}
        end = time.perf_counter() + LONGEST
        for number in range(rounds):
            if number >= LEAST and time.perf_counter() > end:
                break
            for width in widths if number % 2 == 0 else reversed(widths):
                bench = self._benches[width]
                samples[width].append(bench.seconds(bench.train))
        return samples

    def _bench(self, width: int) -> StepBench:
        run = self._run.changed("model", {**self._run.model, "hidden": width})
        model = run.build(self._images)
        if run.trainer.compile:
            model.compile()
        module = building.build_module(
            replace(run, trainer=replace(run.trainer, test=False)), model, self._images, self._data, self._coder
        )
        bench = StepBench(
            run,
            module,
            self._images,
            batch=self._data.batch_size,
            mixes=self._data.augment.mixes,
            precision=self._precision,
            device=self._device,
        )
        bench.train()
        return bench


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} of {platform.node()}, {torch.get_num_threads()} threads"
