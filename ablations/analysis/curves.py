"""Learning curves of runs, from TensorBoard's event files or the CSV logger, and their bands over seeds."""

from __future__ import annotations

import csv
import io
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

from ablations.statistics import t_interval
from tasks.system import results
from tasks.system.reading import check_file

Curve = Mapping[int, float]
"""Step -> value."""


def read(run_dir: Path, metric: str) -> dict[int, float]:
    """The metric at every step at which the run logged it, in order; empty if it did not."""
    points: dict[int, float] = {}
    for path in sorted(run_dir.glob("events.out.tfevents.*")):
        check_file(path)
        points.update(_scalars(path, metric))
    text = None if points else results.read(run_dir / "metrics.csv")
    for row in csv.DictReader(io.StringIO(text or "", newline="")):
        step, value = row.get("step") or "", row.get(metric)
        if value and step.isdecimal():
            with suppress(ValueError):  # a row that is cut off, or damaged
                points[int(step)] = float(value)
    return dict(sorted(points.items()))


def band(curves: Sequence[Curve], level: float) -> list[dict[str, Any]]:
    """Mean over seeds with its t interval, at every step that all the curves that reach so far have.

    A step that only some curves have is left out: a mean over changing seeds would jump.
    """
    points = []
    for step in sorted({step for curve in curves for step in curve}):
        values = [curve[step] for curve in curves if math.isfinite(curve.get(step, math.nan))]
        if len(values) == sum(max(curve, default=-1) >= step for curve in curves):
            interval = t_interval(values, level)
            points.append(
                {"step": step, "mean": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
            )
    return points


def _scalars(path: Path, tag: str) -> Iterator[tuple[int, float]]:
    """(step, value) of one tag. TensorBoard's own reader takes seconds to import and checks sums byte by byte."""
    for record in _records(path.read_bytes()):
        try:
            event = Event.FromString(record)
        except DecodeError:
            return
        for value in event.summary.value:
            if value.tag == tag:
                number = value.simple_value if value.HasField("simple_value") else _tensor(value.tensor)
                yield event.step, number


def _records(data: bytes) -> Iterator[bytes]:
    """TFRecord framing: length (8 bytes), its checksum (4), the record, its checksum (4); the last may be cut off."""
    place = 0
    while place + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        end = place + 12 + length
        if end + 4 > len(data):
            return
        yield data[place + 12 : end]
        place = end + 4


def _tensor(tensor: Any) -> float:
    """A scalar as newer writers store it."""
    if tensor.float_val:
        return float(tensor.float_val[0])
    return float(struct.unpack("<f", tensor.tensor_content[:4])[0]) if len(tensor.tensor_content) >= 4 else math.nan
