"""The benchmark itself: which rows are missing, and one interleaved measurement after the other until none is."""

from __future__ import annotations

import platform
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from operators.benchmark import gate
from operators.benchmark.arms import Arm, MixerArm
from operators.benchmark.measuring import roofline
from operators.benchmark.measuring.clock import Lane, round_robin
from operators.benchmark.measuring.guard import Guard
from operators.benchmark.measuring.memory import allocation_errors, freed_memory_kept, give_back
from operators.benchmark.measuring.statistics import quartiles
from operators.benchmark.plan import BenchmarkPlan
from operators.benchmark.table import KEY, Row, TimingTable, code_digest, hardware_name, key
from operators.benchmark.workload import FORWARD, WORKS, Shape, Target, Workload, functions
from operators.errors import InputError

UTC_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass
class Outcome:
    """How it went.

    Attributes:
        written: rows that were added.
        failed: by (arm, reason), where it was refused by the gate, or had numbers that were not finite.
        skipped: by (arm, reason), where it could not be timed.
        left: rows that the time did not suffice for.
    """

    written: int = 0
    failed: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    skipped: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    left: int = 0


@dataclass
class _Ready:
    """An arm that has passed the gate and is warm."""

    arm: Arm
    workload: Workload
    lanes: list[Lane]
    traffic: dict[str, int]
    error: float | None


class Failure(Exception):  # noqa: N818 - no error of the program
    """An arm computes something wrong."""


class Bench:
    """Carries out a plan.

    Args:
        plan: what to measure.
        advance: called with a share of the whole work each time that it is done, and with what is being done.
        judge: the gate.
    """

    def __init__(
        self,
        plan: BenchmarkPlan,
        *,
        advance: Callable[[float, str], None] = lambda share, doing: None,
        judge: Callable[[MixerArm, Shape, Target, str], gate.GateVerdict] = gate.judge,
    ) -> None:
        self.plan = plan
        self.advance = advance
        self.judge = judge
        self.guard = Guard(plan.memory)
        self.code = code_digest(plan.packages)
        self.hardware = {place.device: hardware_name(place.device) for place in plan.places}
        self.tables = {device: TimingTable(self.path(device)) for device in self.hardware}
        self.outcome = Outcome()
        self._verdicts: dict[tuple[Any, ...], gate.GateVerdict] = {}

    def path(self, device: str) -> Path:
        """The CSV file of a device, named after it."""
        threads = f"-{self.plan.threads}-threads" if device == "cpu" else ""
        return self.plan.out / f"benchmark-{self.hardware[device]}{threads}.csv"

    @cached_property
    def total(self) -> float:
        """The whole work, in units of `advance`: rows of the table, those of large grids counted as many."""
        count = sum(len(arms) for arms, _ in self.plan.companies()) * len(self.plan.places)
        return sum(self._weight(shape) * count for shape in self.plan.shapes)

    def _weight(self, shape: Shape) -> float:
        return 1 + shape.batch * shape.tokens * shape.dim / 1e6

    def run(self) -> Outcome:
        """Measure what is missing; returns when nothing is, or when the time is up."""
        end = perf_counter() + 60 * self.plan.minutes
        torch.set_num_threads(self.plan.threads)
        if "cuda" in self.hardware:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        with freed_memory_kept():
            for place in self.plan.places:
                for shape in self.plan.shapes:
                    for arms, reference in self.plan.companies():
                        self._group(arms, reference, shape, place, end)
                        give_back()
        return self.outcome

    def _group(self, arms: Sequence[Arm], reference: str | None, shape: Shape, place: Target, end: float) -> None:
        """All arms at one shape and place; as many interleaved measurements as resuming and time make necessary."""
        table = self.tables[place.device]
        done = {key(row) for row in table.rows}
        pending = [arm for arm in arms if self._missing(arm, reference, shape, place, done)]
        # The reference first: what it takes is then known before any other arm is admitted.
        pending.sort(key=lambda arm: arm.label != reference)
        weight = self._weight(shape)
        self.advance(weight * (len(arms) - len(pending)), "")
        # Nothing measured yet in this run: one arm at least, however long it takes, so that every run gets further.
        forced = self.outcome.written == 0
        ready: list[_Ready] = []
        company: list[_Ready] = []
        limits: dict[str, Lane] = {}
        for index, arm in enumerate(pending):
            kept = not forced or ready
            if kept and self._ending(limits, [*company, *ready]) > end:
                self._leave(pending[index:], shape, place)
                break
            self.advance(0, f"{shape.grid} {place.dtype}, checking {arm.label}")
            work = self._prepare(arm, shape, place)
            if work is None:
                self.advance(weight, "")
                continue
            if not limits:
                limits = self._ceilings(place)
                company = self._reference([arm for arm in arms if arm not in pending], reference, shape, place)
            if kept and self._ending(limits, [*company, *ready, work]) > end:
                self._leave(pending[index:], shape, place)
                break
            ready.append(work)
        if not ready:
            return
        lanes = [*limits.values(), *(lane for work in [*company, *ready] for lane in work.lanes)]
        doing = f"{shape.grid} {place.dtype}, timing {len(ready)} arms"
        share = weight * len(ready) / (len(lanes) * self.plan.repeats)
        round_robin(
            lanes, self.plan.repeats, deadline=end, least=1 if forced else 3, after=lambda: self.advance(share, doing)
        )
        for row in self._rows([*company, *ready], reference, limits, shape, place):
            if key(row) not in done:
                table.append(row)
                self.outcome.written += 1

    def _leave(self, arms: Sequence[Arm], shape: Shape, place: Target) -> None:
        """Note that these arms are for another time."""
        self.outcome.left += sum(len(WORKS) for arm in arms if arm.absent(shape, place) is None)

    def _ending(self, limits: Mapping[str, Lane], ready: Sequence[_Ready]) -> float:
        """When the samples of all these would be taken."""
        lanes = [*limits.values(), *(lane for work in ready for lane in work.lanes)]
        return perf_counter() + self.plan.repeats * sum(lane.cost for lane in lanes)

    def _reference(self, done: Sequence[Arm], reference: str | None, shape: Shape, place: Target) -> list[_Ready]:
        """The reference, where its own rows are there already: it is timed once more beside those that are not."""
        for arm in done:
            if arm.label == reference:
                work = self._prepare(arm, shape, place)
                return [] if work is None else [work]
        return []

    def _missing(
        self, arm: Arm, reference: str | None, shape: Shape, place: Target, done: set[tuple[Any, ...]]
    ) -> bool:
        """Whether the arm lacks a row for either of `WORKS`."""
        facts = self._facts(arm, reference, shape, place)
        keys = [tuple({**facts, "work": work}[name] for name in KEY) for work in WORKS]
        return not all(key in done for key in keys)

    def _facts(self, arm: Arm, reference: str | None, shape: Shape, place: Target) -> dict[str, Any]:
        plan = self.plan
        return {
            "hardware": self.hardware[place.device],
            "device": place.device,
            "threads": plan.threads,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "code": self.code,
            "level": plan.level,
            "arm": arm.label,
            "kind": arm.kind,
            "dtype": place.dtype,
            "batch": shape.batch,
            "height": shape.height,
            "width": shape.width,
            "dim": shape.dim,
            "repeats": plan.repeats,
            "reference": reference,
        }

    @staticmethod
    def _ceilings(place: Target) -> dict[str, Lane]:
        lanes = {}
        for label, workload in roofline.ceilings(place).items():
            lanes[label] = Lane(label, FORWARD, functions(workload, place)[FORWARD], workload, place)
            lanes[label].calibrate()
        return lanes

    def _prepare(self, arm: Arm, shape: Shape, place: Target) -> _Ready | None:
        """Check, build and warm up an arm; None where it failed or cannot be timed, with the reason in the outcome."""
        listed = self.outcome.skipped
        try:
            reason = arm.absent(shape, place) or self.guard.refusal(arm, shape, place)
            if reason is None:
                with allocation_errors():
                    return self._warm(arm, shape, place)
        except Failure as failure:
            listed, reason = self.outcome.failed, str(failure)
        except InputError as error:
            reason = str(error)
        except MemoryError:
            reason = "out of memory"
        places = listed.setdefault((arm.label, reason), [])
        where = f"{place.device} {place.dtype} {shape.grid}"
        if where not in places:
            places.append(where)
        return None

    def _warm(self, arm: Arm, shape: Shape, place: Target) -> _Ready:
        workload = arm.build(shape, place)
        error = self._checked(arm, shape, place, workload.backend)
        lanes, moved = [], {}
        for work, function in functions(workload, place).items():
            lane = Lane(arm.label, work, function, workload, place)
            output = lane.calibrate(check=partial(_check_finite, workload, work))
            moved[work] = roofline.traffic(workload, output, work)
            lanes.append(lane)
        if workload.served != workload.backend:
            error = self._checked(arm, shape, place, workload.served)
        return _Ready(arm, workload, lanes, moved, error)

    def _checked(self, arm: Arm, shape: Shape, place: Target, backend: str) -> float | None:
        """The error that the gate found, None for arms without a gate. Raises `Failure` where it was too large."""
        mixer = arm.judged
        if mixer is None:
            return None
        # Backends may depend on the grid: the verdict holds for the one that serves here.
        known = (mixer.label, mixer.level, place, gate.reduced(mixer, shape, place), backend)
        if known not in self._verdicts:
            self._verdicts[known] = self.judge(mixer, shape, place, backend)
        verdict = self._verdicts[known]
        if not verdict.passed:
            raise Failure(str(verdict))
        return verdict.error

    def _rows(
        self, ready: Sequence[_Ready], reference: str | None, limits: Mapping[str, Lane], shape: Shape, place: Target
    ) -> list[Row]:
        run, now = uuid.uuid4().hex[:12], datetime.now(UTC).strftime(UTC_FORMAT)
        rate, bandwidth = roofline.limits({label: quartiles(lane.samples)[1] for label, lane in limits.items()}, place)
        references: Mapping[str, list[float]] = {
            lane.work: lane.samples for work in ready if work.arm.label == reference for lane in work.lanes
        }
        rows = []
        for work in ready:
            for lane in work.lanes:
                low, median, high = quartiles(lane.samples)
                ratios: tuple[float | None, ...] = (None, None, None)
                if lane.work in references:
                    pairs = zip(lane.samples, references[lane.work], strict=True)
                    ratios = quartiles([mine / theirs for mine, theirs in pairs])
                operations, moved = roofline.flops(work.workload.macs, lane.work), work.traffic[lane.work]
                rows.append(
                    Row(
                        **self._facts(work.arm, reference, shape, place),
                        run=run,
                        utc=now,
                        backend=work.workload.served,
                        work=lane.work,
                        samples=len(lane.samples),
                        calls=lane.calls,
                        seconds=median,
                        seconds_low=low,
                        seconds_high=high,
                        peak_bytes=lane.peak,
                        flops=operations,
                        traffic_bytes=moved,
                        product_rate=rate,
                        copy_bandwidth=bandwidth,
                        share=roofline.attainable(operations, moved, rate, bandwidth) / median,
                        ratio_low=ratios[0],
                        ratio=ratios[1],
                        ratio_high=ratios[2],
                        error=work.error,
                    )
                )
        return rows


def _check_finite(workload: Workload, work: str, output: Tensor) -> None:
    """Raise `Failure` unless the output and every gradient there is are finite."""
    leaves = [*workload.inputs, *workload.parameters]
    results = [("the output", output), *(("a gradient", leaf.grad) for leaf in leaves if leaf.grad is not None)]
    for name, value in results:
        if not torch.isfinite(value).all():
            raise Failure(f"{work}: {name} is not finite")
