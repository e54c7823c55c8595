"""Of a block: its arms, how they differ, the uncertainty from test images, learning curves, what tuning tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ablations.analysis.answer import scale_of
from ablations.analysis.words import DASH, Scale, p_value, plural
from ablations.reporting import figures, tables
from ablations.reporting.elements import Element, Figure, Folded, Heading, Paragraph, ReportTable
from ablations.reporting.figures import Bar
from ablations.reporting.svg import SERIES

MOST_ROWS = 100


def arms(result: Mapping[str, Any], level: float, name: str) -> Iterator[Element]:
    """The arms in a table, and their differences to the reference in a figure, whose file is named after `name`."""
    yield Heading("Arms", 3)
    header, rows = tables.arm_table(result, level)
    strong = [place for place, row in enumerate(result["arms"]) if row["reference"]]
    yield ReportTable(header, rows[:MOST_ROWS], strong, kind="cards")
    rest = f" The first {MOST_ROWS} of {len(rows)}; all are in arms.csv." if len(rows) > MOST_ROWS else ""
    yield Paragraph(
        "Best first, then arms of which a run diverged. Means over seeds with t intervals of their own"
        f"{_flattered(result, level)}; differences are paired by seed, with t intervals, and Holm's adjustment over "
        f"all arms. Costs are of one image and one run (median over seeds).{rest}",
        "soft",
    )
    bars = _difference_bars(result)
    if bars:
        caption = f"{_against(result)}, paired by seed: each interval by itself, from its own differences alone."
        if len(bars) > figures.MOST_ROWS:
            caption += f" The first {figures.MOST_ROWS} of {len(bars)}."
        scale = scale_of(result)
        draw = partial(figures.forest, bars, scale, _against(result), scale.axis_title)
        yield Figure(draw, caption, f"arms-{name}")


def best(result: Mapping[str, Any], level: float, name: str) -> Iterator[Element]:
    """The differences to the best arm, if there are others."""
    bars, scale = _best_bars(result), scale_of(result)
    if not bars:
        return
    close = [row["title"] for row in result["against_best"] if not row["told_apart"]]
    verdict = f"Not told apart from it: {', '.join(close)}." if close else "All are told apart from it."
    yield Heading(f"Against the best arm, {_best_title(result)}", 3)
    yield Figure(
        partial(figures.forest, bars, scale, _behind(result), scale.axis_title),
        f"{_behind(result)}: {100 * level:g} % intervals that hold for all pairs of arms together, so also for a best "
        "arm that the scores have chosen. Errors are a pair's own, moderated by the residual of all arms. "
        f"Hollow: not told apart. {verdict}",
        f"best-{name}",
    )
    images = any(row["low_images"] is not None for row in result["against_best"])
    rows = [
        [row["title"], scale.signed(row["difference"]), scale.interval(row["low"], row["high"]), p_value(row["p"]),
         *([scale.interval(row["low_images"], row["high_images"])] if images else [])]
        for row in result["against_best"]
    ]  # fmt: skip
    header = [
        f"arm less {_best_title(result)}",
        f"difference{scale.in_brackets}",
        "interval for all pairs",
        "p for all pairs",
        *(["for other test images too"] if images else []),
    ]
    yield Folded("The differences in numbers", ReportTable(header, rows[:MOST_ROWS]))


def images(result: Mapping[str, Any], level: float) -> Iterator[Element]:
    """The differences over the test images, if predictions were kept."""
    if not result["images"]:
        return
    scale = Scale.of(result["metric"], [row["high"] - row["difference"] for row in result["images"]])
    arms = {row["arm"]: row for row in result["arms"]}
    first = result["images"][0]
    rows = [
        [arms[row["arm"]]["title"], scale.signed(row["difference"]), scale.interval(row["low"], row["high"]),
         p_value(row["p"]), _over_both(arms[row["arm"]], scale), f"{row['images']:,}", str(row["seeds"])]
        for row in result["images"]
    ]  # fmt: skip
    against = f"arm less {arms[first['reference']]['title']}"
    interval = f"{100 * level:g} % interval"
    header = [against, f"difference{scale.in_brackets}", interval, "p", "over seeds and images", "images", "seeds"]
    yield Heading("Uncertainty from the test images", 3)
    yield Paragraph(
        "How far the differences would move with other test images of the same kind, the trained models being given; "
        "then with other seeds and other images, paired by both. Intervals above are over seeds unless they say that "
        "they hold for other test images too.",
        "soft",
    )
    inside = ReportTable(header, rows[:MOST_ROWS])
    yield inside if len(rows) <= 12 else Folded(plural(len(rows), "arm"), inside)


def _over_both(arm: Mapping[str, Any], scale: Scale) -> str:
    return scale.interval(arm["difference_low_images"], arm["difference_high_images"])


def curves(result: Mapping[str, Any]) -> Iterator[Element]:
    """The learning curves of the block, as many as there are colours."""
    if not result["curves"]:
        return
    lines = _chosen(result)
    scale = _curve_scale(lines)
    yield Heading("Learning curves", 3)
    rest = f" {len(lines)} of {len(result['curves'])} arms; all are in curves.csv." if len(lines) < len(
        result["curves"]
    ) else ""  # fmt: skip
    yield Figure(
        partial(figures.curves, lines, scale),
        f"{scale.titled.capitalize()}, mean over seeds; bands: t intervals, cut at the figure's edge.{rest}",
        f"curves-{result['name']}",
    )


def tuning(result: Mapping[str, Any]) -> Iterator[Element]:
    """What tuning tried, if anything was tuned."""
    if result["tuning"]:
        yield Heading("Tuning, on validation", 3)
        scale = Scale.of(result["tuning_metric"], (), [row["score"] for row in result["tuning"]])
        rows = [
            [
                row["arm"],
                str(row["seed"]),
                DASH if row["level"] is None else f"{row['level']:g}",
                scale.value(row["score"]),
                row["state"],
            ]
            for row in result["tuning"]
        ]
        yield Folded(
            plural(len(rows), "trial"), ReportTable(["arm", "seed", "learning rate", scale.titled, "state"], rows)
        )


def _flattered(result: Mapping[str, Any], level: float) -> str:
    """What the first arm's own interval leaves out."""
    best, scale = result["best"], scale_of(result)
    if best is None or best["low"] is None or best["arms"] < 3:
        return ""
    shrunken = (
        "" if best["shrunken"] == best["mean"] else f", an estimate shrunken for it {scale.value(best['shrunken'])}"
    )
    interval = scale.interval(best["low"], best["high"])
    return f" (the first was chosen as the best of {best['arms']}: {100 * level:g} % interval {interval}{shrunken})"


def _difference_bars(result: Mapping[str, Any]) -> list[Bar]:
    return [
        Bar(row["title"], row["difference"], row["difference_low"], row["difference_high"])
        for row in result["arms"]
        if row["difference"] is not None
    ]


def _best_bars(result: Mapping[str, Any]) -> list[Bar]:
    return [
        Bar(row["title"], row["difference"], row["low"], row["high"], not row["told_apart"])
        for row in result["against_best"]
        if row["difference"] is not None
    ]


def _chosen(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The arms whose curves are drawn: the reference, the best and the worst, as many as there are colours."""
    ranked = [row["arm"] for row in result["objectives"][0]["arms"]]
    if len(ranked) > SERIES:
        ranked = list(dict.fromkeys([*ranked[: SERIES - 2], result["reference"] or ranked[SERIES - 2], *ranked[::-1]]))
    lines = {line["arm"]: line for line in result["curves"]}
    return [{**lines[arm], "arm": lines[arm]["title"]} for arm in ranked if arm in lines][:SERIES]


def _curve_scale(lines: Sequence[Mapping[str, Any]]) -> Scale:
    return Scale.of(lines[0]["metric"], (), [point["mean"] for line in lines for point in line["points"]])


def _against(result: Mapping[str, Any]) -> str:
    reference = next((row["title"] for row in result["arms"] if row["reference"]), "")
    return f"Difference to {reference} in {scale_of(result).title}"


def _behind(result: Mapping[str, Any]) -> str:
    return f"Difference to {_best_title(result)} in {scale_of(result).title}"


def _best_title(result: Mapping[str, Any]) -> str:
    return next(str(row["title"]) for row in result["arms"] if row["arm"] == result["against_best"][0]["best"])
