"""The table as Markdown: times, memory, roofline, exponents, and what bare operations take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from operators.benchmark.measuring.statistics import Power, fit_power
from operators.benchmark.table import Row
from operators.benchmark.workload import BOTH, FORWARD, WORKS

SECTION = ("level", "dtype", "batch", "dim", "repeats")
"""Rows that agree in these, and in what `reference_of` gives, stand in one section."""
BARE = "bare operations"
NOTES = """\
Times are medians over samples, quartiles in brackets; a sample takes 20 ms or one call, and all arms of one grid are
sampled in turn. Forward runs without gradients; the backward pass starts from a dense random gradient. Memory is the
peak during a call above what was there before it; on the CPU freed memory stays with the process. Roofline: attainable
over measured time, attainable time = max(flops / rate, bytes / bandwidth), with the rate of a large matrix product and
the bandwidth of a large copy, sampled among the arms; flops are 2 per MAC of `mixer.cost`, three times that with the
backward pass, and bytes the compulsory traffic: inputs, parameters and output. Ratio: time over the reference's in the
same round, median. Each mixer was compared with float64 before it was timed, output and all gradients; "error" is the
largest relative RMS error."""


def section_of(row: Row) -> tuple[str, ...]:
    """What `SECTION` is for a row."""
    return (*(str(getattr(row, name)) for name in SECTION), str(reference_of(row)))


def reference_of(row: Row) -> str | None:
    """What the row's times are divided by: the arm's label, or in one word every mixer's own bare operations."""
    return BARE if row.reference and row.reference.startswith("bare ") else row.reference


def sections(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows by section, in each by tokens, the arms in the order in which they were measured first."""
    ordered = list(rows)
    first = {label: place for place, label in reversed(list(enumerate(row.arm for row in ordered)))}
    kinds = ("mixer", "rival", "bare")
    ordered.sort(key=lambda row: (section_of(row), row.tokens, row.grid, kinds.index(row.kind), first[row.arm]))
    return [list(members) for _, members in groupby(ordered, section_of)]


def exponents(rows: Iterable[Row], value: str = "seconds", sizes: int = 0) -> dict[tuple[str, str], Power]:
    """By (arm, work) of one section, the fitted power of a column over tokens, where there are two sizes or more.

    With `sizes` over so many of the largest ones alone.
    """
    points: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if getattr(row, value):
            points.setdefault((row.arm, row.work), []).append(row)
    fits = {}
    for key, members in points.items():
        large = sorted(members, key=lambda row: row.tokens)[-sizes:]
        fits[key] = fit_power([row.tokens for row in large], [getattr(row, value) for row in large])
    return {key: fit for key, fit in fits.items() if fit is not None}


def markdown(
    rows: Sequence[Row],
    *,
    failed: Mapping[tuple[str, str], Sequence[str]],
    skipped: Mapping[tuple[str, str], Sequence[str]],
    left: int = 0,
    figures: Mapping[tuple[str, ...], str] | None = None,
) -> str:
    """The report on rows of one machine.

    Args:
        rows: what was measured.
        failed: by (arm, reason), where.
        skipped: by (arm, reason), where.
        left: rows not measured yet.
        figures: by section, the name of its figure's file.
    """
    parts = ["# Benchmark"]
    if rows:
        latest = rows[-1]
        machine = f"{latest.hardware} ({latest.device}), {latest.threads} threads"
        parts += [f"{machine}, torch {latest.torch}, Python {latest.python}, code {latest.code}", NOTES]
    for members in sections(rows):
        latest = members[0]
        parts.append(f"## Level {latest.level}, {latest.dtype}, batch {latest.batch}, {latest.dim} channels")
        if figures and section_of(latest) in figures:
            parts.append(f"![time and memory against tokens]({figures[section_of(latest)]})")
        parts += [_times(members), _exponents(members), _bare(members)]
    for title, arms in (("Failed: not timed", failed), ("Skipped", skipped)):
        if arms:
            lines = [f"* {arm}: {reason} ({where(places)})" for (arm, reason), places in arms.items()]
            parts += [f"## {title}", "\n".join(lines)]
    if left:
        parts.append(f"{left} rows are still to be measured: run the same command again.")
    return "\n\n".join(part for part in parts if part) + "\n"


def where(places: Sequence[str]) -> str:
    """Places in words, the first two of many."""
    return ", ".join(places) if len(places) <= 3 else f"{', '.join(places[:2])} and {len(places) - 2} more"


def _times(rows: Sequence[Row]) -> str:
    reference = reference_of(rows[0])
    over = [f"{work} / {reference}" for work in WORKS] if reference else []
    heads = ["grid", "arm", "backend", *(f"{work} ms" for work in WORKS), *(f"{work} MiB" for work in WORKS)]
    heads += [*(f"{work} roofline" for work in WORKS), *over, "error"]
    cells: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        cells.setdefault((row.grid, row.arm), {})[row.work] = row
    lines = []
    for (grid, arm), works in cells.items():
        pair = [works.get(work) for work in WORKS]
        some = next(row for row in pair if row is not None)
        lines.append(
            [
                grid,
                arm,
                some.backend,
                *(_milliseconds(row) if row else "–" for row in pair),
                *(f"{row.peak_bytes / 2**20:.3g}" if row else "–" for row in pair),
                *(f"{row.share:.2g}" if row and row.flops + row.traffic_bytes else "–" for row in pair),
                *((f"{row.ratio:.3g}" if row and row.ratio is not None else "–" for row in pair) if reference else ()),
                f"{some.error:.1g}" if some.error is not None else "–",
            ]
        )
    return table(heads, lines, left=3)


def _milliseconds(row: Row) -> str:
    low, middle, high = (1e3 * value for value in (row.seconds_low, row.seconds, row.seconds_high))
    return f"{middle:.3g} ({low:.3g}–{high:.3g})"


def _exponents(rows: Sequence[Row]) -> str:
    fits = {
        "time, forward": (exponents(rows), FORWARD),
        f"time, {BOTH}": (exponents(rows), BOTH),
        f"time, {BOTH}, two largest": (exponents(rows, sizes=2), BOTH),
        f"memory, {BOTH}": (exponents(rows, "peak_bytes"), BOTH),
        f"memory, {BOTH}, two largest": (exponents(rows, "peak_bytes", sizes=2), BOTH),
    }
    lines = []
    for arm in dict.fromkeys(row.arm for row in rows):
        powers = [by_arm.get((arm, work)) for by_arm, work in fits.values()]
        points = max((power.points for power in powers if power), default=0)
        if points:
            lines.append([arm, *(_power(power) for power in powers), str(points)])
    if not lines:
        return ""
    title = "Exponents p of time and memory ∝ tokensᵖ, least squares in logarithms, ± standard error (3 sizes on):"
    return f"{title}\n\n{table(['arm', *fits, 'sizes'], lines, left=1)}"


def _power(power: Power | None) -> str:
    if power is None:
        return "–"
    return f"{power.exponent:.2f}" + ("" if power.error is None else f" ± {power.error:.2f}")


def _bare(rows: Sequence[Row]) -> str:
    """For each mixer that was measured beside its bare operations, the ratios on all grids."""
    if reference_of(rows[0]) != BARE:
        return ""
    ratios = {(row.arm, row.grid, row.work): row for row in rows if row.kind == "mixer"}
    grids = list(dict.fromkeys(row.grid for row in rows))
    lines = [
        [arm, *(_ratio(ratios.get((arm, grid, work))) for grid in grids for work in WORKS)]
        for arm in dict.fromkeys(arm for arm, *_ in ratios)
    ]
    heads = ["arm", *(f"{grid} {work}" for grid in grids for work in WORKS)]
    return f"Over bare operations (median of ratios, quartiles):\n\n{table(heads, lines, left=1)}"


def _ratio(row: Row | None) -> str:
    if row is None or row.ratio is None:
        return "–"
    return f"{row.ratio:.2f} ({row.ratio_low:.2f}–{row.ratio_high:.2f})"


def table(heads: Sequence[str], lines: Sequence[Sequence[str]], *, left: int) -> str:
    """A Markdown table whose first `left` columns are aligned to the left, the others to the right."""
    rule = ["---" if place < left else "---:" for place in range(len(heads))]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in (heads, rule, *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
