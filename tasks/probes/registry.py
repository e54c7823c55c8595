"""The probes by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from operators import value_types
from operators.errors import check_choice, check_names, check_number
from tasks.probes.forecast.field_forecast import FieldForecast
from tasks.probes.grouping.contour import Contour
from tasks.probes.grouping.flood_fill import FloodFill
from tasks.probes.grouping.maze import Maze
from tasks.probes.grouping.symmetry import Symmetry
from tasks.probes.items.colours import ColourConditioning, ColourSelection
from tasks.probes.items.copying import Copy, MaskSelection
from tasks.probes.linear.blur import Blur, Deblur
from tasks.probes.linear.shift import Shift
from tasks.probes.linear.source_sink import SourceSink
from tasks.probes.probe import Probe
from tasks.probes.recall.counting import Counting
from tasks.probes.recall.mqar_2d import MQAR2D
from tasks.probes.transfer.resolution import ResolutionTransfer
from tasks.probes.transfer.rotation import Rotation

PROBES: dict[str, type[Probe]] = {
    kind.name: kind
    for kind in (
        *(Shift, Blur, Deblur, SourceSink, Counting, MQAR2D),
        *(FloodFill, Maze, Contour, Symmetry, Rotation, ResolutionTransfer),
        *(Copy, MaskSelection, ColourSelection, ColourConditioning),
        FieldForecast,
    )
}


def dials(name: str) -> dict[str, str]:
    """The dials of the probe `name` and their types as written, in order.

    Raises:
        InputError: an unknown probe, with the nearest.
    """
    return {dial.name: str(dial.type) for dial in fields(PROBES[check_choice("probe", name, PROBES)])}


def create(name: str, difficulty: int = 0, **given: Any) -> Probe:
    """The probe `name` of a difficulty, with other dials where they are `given`; None keeps the difficulty's.

    Raises:
        InputError: an unknown name or dial, with the nearest; a difficulty or a value out of range.
    """
    known = dials(name)
    kind = PROBES[name]
    check_number("probe.difficulty", difficulty, least=0, most=len(kind.difficulties) - 1, integer=True)
    check_names(f"probe={name}", given, known)
    own = {key: value_types.as_annotated(value, known[key]) for key, value in given.items() if value is not None}
    return kind(**{**kind.difficulties[difficulty], **own})
