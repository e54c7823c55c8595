"""The report, section by section, from a summary alone (and the sheets of samples that it names)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ablations.analysis.answer import scale_of
from ablations.analysis.words import DASH, Scale, minus, p_said, p_value, plural, seconds
from ablations.layout import STATES
from ablations.reporting import figures, html, tables
from ablations.reporting.figures import NARROW, Bar
from ablations.reporting.svg import SERIES, Canvas

MOST_SHEETS = 12
MOST_PLOTS = 6
MOST_ROWS = 100

Named = tuple[str, Canvas]
"""A figure and the name of its file."""


def opening(summary: Mapping[str, Any]) -> Iterator[str]:
    """Question, answer, how far the study is, and what to know first."""
    progress, level = summary["progress"], summary["level"]
    yield html.paragraph(f"study {summary['name']}", "study")
    yield html.heading(summary["question"] or summary["name"], 1)
    yield html.paragraph(summary["answer"], "answer")
    counts = [f"{progress[state]} {state}" for state in STATES if progress[state]]
    told = f"{plural(progress['planned'], 'trial')} planned: {', '.join(counts)}"
    yield html.paragraph(
        f"{told}; {seconds(progress['seconds'])} of runs in all. Intervals hold {100 * level:g} % and are over seeds "
        "(another training run) unless said otherwise.",
        "soft",
    )
    yield html.notes(summary["notes"])


def block(found: Mapping[str, Any], summary: Mapping[str, Any]) -> Iterator[str]:
    """A block of a factorial study."""
    several = len(summary["blocks"]) > 1
    yield html.heading(f"Block {found['name']}" if several else "Results", 2)
    factors = "; ".join(f"{name}: {', '.join(levels)}" for name, levels in found["factors"].items())
    controls = found["negative_controls"]
    declared = f" Declared without effect in advance: {', '.join(controls)}." if controls else ""
    yield html.paragraph(f"{found['design']}, {plural(len(found['seeds']), 'seed')}. {factors}.{declared}", "soft")
    for result in found["objectives"]:
        if len(found["objectives"]) > 1:
            yield html.heading(scale_of(result).title.capitalize(), 3)
        yield from _effects(result, summary["level"])
        yield from _arms(result, summary["level"])
        yield from _best(result, summary["level"])
        yield from _interactions(result)
        yield from _images(result, summary["level"])
        yield from _power(result, found)
    yield from _curves(found)
    yield from samples(found["sheets"])
    yield from _tuning(found)


def closing(summary: Mapping[str, Any], files: Sequence[str]) -> Iterator[str]:
    """Where the numbers come from, the plan, and the files behind the page."""
    yield html.heading("Provenance", 2)
    rows = [
        [name, "; ".join(_with_runs(one, len(values)) for one in values)]
        for name, values in summary["provenance"].items()
    ]
    yield html.table([], rows, kind="facts") if rows else html.paragraph("No run has left its provenance yet.", "soft")
    plan = [[key, _plain(value)] for key, value in summary["plan"].items()]
    yield html.folded("The plan of the study", html.table([], plan, kind="facts"))
    yield html.paragraph(f"Beside this page: {', '.join(files)}.", "soft")


def drawn(summary: Mapping[str, Any]) -> Iterator[Named]:
    """Every figure of the blocks again, at full width, for files of their own."""
    for found in summary["blocks"]:
        for result in found["objectives"]:
            name = f"{found['name']}-{result['metric']}"
            scale = scale_of(result)
            if bars := _effect_bars(result):
                yield f"effects-{name}", figures.forest(bars, scale, _of(scale), _axis(scale), figures.WIDE)
            if bars := _difference_bars(result):
                yield f"arms-{name}", figures.forest(bars, scale, _against(result), _axis(scale), figures.WIDE)
            if bars := _best_bars(result):
                yield f"best-{name}", figures.forest(bars, scale, _behind(result), _axis(scale), figures.WIDE)
            for one in result["interactions"][:MOST_PLOTS]:
                pair = "-".join(one["factors"])
                yield f"interaction-{name}-{pair}", figures.interaction(one, scale, NARROW)
        if found["curves"]:
            lines = _chosen(found)
            yield f"curves-{found['name']}", figures.curves(lines, _curve_scale(lines), figures.WIDE)


def _effects(result: Mapping[str, Any], level: float) -> Iterator[str]:
    bars, scale = _effect_bars(result), scale_of(result)
    if not bars:
        return
    fit = result["fit"]
    yield html.heading(_of(scale), 3)
    controls = " Hollow: negative controls." if any(bar.hollow for bar in bars) else ""
    freedom = f"{plural(fit['residual_df'], 'degree')} of freedom"
    yield html.figure(
        partial(figures.forest, bars, scale, _of(scale), _axis(scale)),
        f"{_meaning(result)} {100 * level:g} % t intervals from the factorial model blocked by seed, pooled residual "
        f"({freedom}, one run's standard deviation "
        f"{scale.value(fit['residual_sd'])}{scale.points}).{controls}",
    )
    for one in result["controls"]:
        yield html.paragraph(_control(one, scale, level))
    header = ["effect", f"estimate{_unit(scale)}", "interval", "p", "Holm p", "in residual sd"]
    rows = [
        [
            one["subject"],
            scale.signed(one["estimate"]),
            scale.interval(one["low"], one["high"]),
            p_value(one["p"]),
            p_value(one["p_holm"]),
            DASH if one["standardised"] is None else minus(f"{one['standardised']:+.2f}"),
        ]
        for one in result["effects"]
    ]
    yield html.folded("The effects in numbers", html.table(header, rows))
    aliases = [
        [one["subject"], ", ".join(f"{minus(f'{share:+.3g}')} {name}" for name, share in one["aliases"].items())]
        for one in result["effects"]
        if one["aliases"]
    ]
    if aliases:
        yield html.folded(
            "Aliases: what an estimate is the sum of", html.table(["effect", "and"], aliases, kind="facts")
        )
    tests = [
        [term["term"], str(term["df"]), DASH if term["f"] is None else f"{term['f']:.3g}", p_value(term["p"]),
         p_value(term["p_holm"]), DASH if (eta := term["partial_eta_squared"]) is None else f"{eta:.2f}"]
        for term in result["terms"]
    ]  # fmt: skip
    yield html.folded(
        "Analysis of variance", html.table(["term", "df", "F", "p", "Holm p", "partial eta squared"], tests)
    )


def _meaning(result: Mapping[str, Any]) -> str:
    """What the effects of a figure are."""
    kinds = {one["kind"] for one in result["effects"]}
    told = {
        "main": "of a factor: its mean at the second level less that at the first",
        "level": "of a level: its mean less that of the level of the reference",
        "interaction": "of an interaction: half the difference of differences",
    }
    said = "; ".join(text for kind, text in told.items() if kind in kinds)
    return f"Effect {said}; over all other factors and seeds."


def _control(one: Mapping[str, Any], scale: Scale, level: float) -> str:
    inside = "is zero within its interval" if one["zero_inside"] else "is NOT zero within its interval"
    text = f"Negative control {one['subject']}: {inside} ({scale.interval(one['low'], one['high'])})."
    if one["smallest_margin"] is None:
        return text
    text += f" The data show it to be smaller than {scale.value(one['smallest_margin'])}{scale.points}"
    if one["margin"] is not None:
        shown = "smaller" if one["equivalent"] else "not shown to be smaller"
        text += f", so {shown} than the declared margin of {scale.value(one['margin'])}{scale.points}"
    return f"{text} (two one-sided t tests at {100 * (1 - level):.2g} %)."


def _arms(result: Mapping[str, Any], level: float) -> Iterator[str]:
    yield html.heading("Arms", 3)
    header, rows = tables.arm_table(result, level)
    strong = [place for place, row in enumerate(result["arms"]) if row["reference"]]
    yield html.table(header, rows[:MOST_ROWS], [place for place in strong if place < MOST_ROWS])
    rest = f" The first {MOST_ROWS} of {len(rows)}; all are in arms.csv." if len(rows) > MOST_ROWS else ""
    yield html.paragraph(
        "Best first. Means over seeds with t intervals of their own; differences are paired by seed, with t intervals, "
        f"and Holm's adjustment over all arms. Costs are of one image and one run (median over seeds).{rest}",
        "soft",
    )
    bars = _difference_bars(result)
    if bars:
        caption = f"{_against(result)}, paired by seed: each interval by itself, from its own differences alone."
        if len(bars) > figures.MOST_ROWS:
            caption += f" The first {figures.MOST_ROWS} of {len(bars)}."
        scale = scale_of(result)
        yield html.figure(partial(figures.forest, bars, scale, _against(result), _axis(scale)), caption)


def _best(result: Mapping[str, Any], level: float) -> Iterator[str]:
    bars, scale = _best_bars(result), scale_of(result)
    if not bars:
        return
    close = [one["title"] for one in result["against_best"] if not one["told_apart"]]
    told = f"Not told apart from it: {', '.join(close)}." if close else "All are told apart from it."
    yield html.heading(f"Against the best arm, {_best_title(result)}", 3)
    yield html.figure(
        partial(figures.forest, bars, scale, _behind(result), _axis(scale)),
        f"{_behind(result)}: {100 * level:g} % intervals that hold for all pairs of arms together (Tukey's method in "
        "blocks of seeds, residual pooled over all arms), so also for a best arm that the scores have chosen. "
        f"Hollow: not told apart. {told}",
    )
    rows = [
        [one["title"], scale.signed(one["difference"]), scale.interval(one["low"], one["high"]), p_value(one["p"])]
        for one in result["against_best"]
    ]
    header = [f"arm less {_best_title(result)}", f"difference{_unit(scale)}", "simultaneous interval", "Tukey p"]
    yield html.folded("The differences in numbers", html.table(header, rows[:MOST_ROWS]))


def _interactions(result: Mapping[str, Any]) -> Iterator[str]:
    plots = result["interactions"][:MOST_PLOTS]
    if not plots:
        return
    scale = scale_of(result)
    yield html.heading("Interactions", 3)
    yield html.grid(
        [
            html.small(figures.interaction(one, scale, NARROW), f"{' × '.join(one['factors'])}: {p_said(one['p'])}")
            for one in plots
        ]
    )
    more = f" The {len(plots)} pairs with the smallest p of {len(result['interactions'])}." if len(
        result["interactions"]
    ) > len(plots) else ""  # fmt: skip
    yield html.paragraph(
        f"{scale.titled.capitalize()}. Parallel lines: no interaction. Bars come from the pooled residual "
        f"and serve to compare the points of one plot.{more}",
        "soft",
    )


def _images(result: Mapping[str, Any], level: float) -> Iterator[str]:
    if not result["images"]:
        return
    scale = Scale.of(result["metric"], [one["high"] - one["difference"] for one in result["images"]])
    titles = {row["arm"]: row["title"] for row in result["arms"]}
    one = result["images"][0]
    rows = [
        [titles[one["arm"]], scale.signed(one["difference"]), scale.interval(one["low"], one["high"]),
         p_value(one["p"]), f"{one['images']:,}", str(one["seeds"])]
        for one in result["images"]
    ]  # fmt: skip
    header = [f"arm less {titles[one['reference']]}", f"difference{_unit(scale)}", f"{100 * level:g} % interval", "p",
              "images", "seeds"]  # fmt: skip
    yield html.heading("Uncertainty from the test images, apart", 3)
    yield html.paragraph(
        "How far the differences would move with other test images of the same kind, the trained models being given. "
        "It is not in the intervals above, which are over seeds.",
        "soft",
    )
    inside = html.table(header, rows[:MOST_ROWS])
    yield inside if len(rows) <= 12 else html.folded(plural(len(rows), "arm"), inside)


def _power(result: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    scale, power = scale_of(result), result["power"]
    needed = [row for row in result["arms"] if row["seeds_needed"] is not None]
    if power is None and not needed:
        return
    yield html.heading("Power: how many seeds", 3)
    if power is not None:
        yield html.paragraph(
            f"With {plural(len(found['seeds']), 'seed')}, this design finds a true effect of "
            f"{scale.value(power['smallest_effect'])}{scale.points} with probability {power['power']:g}."
        )
        finer = Scale(scale.metric, scale.factor, min(scale.digits + 1, 6))
        rows = [[f"{finer.value(one['difference'])}{scale.points}", _seeds(one["seeds"])] for one in power["seeds_for"]]
        yield html.table(["to find an effect of", "seeds needed"], rows)
    if needed:
        rows = [
            [row["title"], scale.signed(row["difference"]), f"{row['seeds_needed']:,}", str(row["pairs"])]
            for row in needed[:MOST_ROWS]
        ]
        header = ["arm", f"difference seen{_unit(scale)}", "seeds to find one such", "seeds run"]
        yield html.folded("Seeds for a paired difference of the size seen, arm by arm", html.table(header, rows))


def _curves(found: Mapping[str, Any]) -> Iterator[str]:
    if not found["curves"]:
        return
    lines = _chosen(found)
    scale = _curve_scale(lines)
    yield html.heading("Learning curves", 3)
    rest = f" {len(lines)} of {len(found['curves'])} arms; all are in curves.csv." if len(lines) < len(
        found["curves"]
    ) else ""  # fmt: skip
    yield html.figure(
        partial(figures.curves, lines, scale),
        f"{scale.titled.capitalize()}, mean over seeds; bands: t intervals, cut at the figure's edge.{rest}",
    )


def samples(sheets: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Sheets of samples, arm by arm."""
    if sheets:
        yield html.heading("Samples", 3)
        yield html.grid([html.sheet(one) for one in sheets[:MOST_SHEETS]], "sheets")
        if len(sheets) > MOST_SHEETS:
            yield html.paragraph(f"{MOST_SHEETS} of {len(sheets)} arms; the others lie in the run directories.", "soft")


def _tuning(found: Mapping[str, Any]) -> Iterator[str]:
    if found["tuning"]:
        yield html.heading("Tuning, on validation", 3)
        scale = Scale.of(found["tuning_metric"], (), [row["score"] for row in found["tuning"]])
        rows = [
            [row["arm"], DASH if row["level"] is None else f"{row['level']:g}", scale.value(row["score"]), row["state"]]
            for row in found["tuning"]
        ]
        yield html.folded(plural(len(rows), "trial"), html.table(["arm", "learning rate", scale.titled, "state"], rows))


def _effect_bars(result: Mapping[str, Any]) -> list[Bar]:
    return [Bar(one["subject"], one["estimate"], one["low"], one["high"], one["control"]) for one in result["effects"]]


def _difference_bars(result: Mapping[str, Any]) -> list[Bar]:
    return [
        Bar(row["title"], row["difference"], row["difference_low"], row["difference_high"])
        for row in result["arms"]
        if row["difference"] is not None
    ]


def _best_bars(result: Mapping[str, Any]) -> list[Bar]:
    return [
        Bar(one["title"], one["difference"], one["low"], one["high"], not one["told_apart"])
        for one in result["against_best"]
        if one["difference"] is not None
    ]


def _chosen(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The arms whose curves are drawn: the reference, the best and the worst, as many as there are colours."""
    ranked = [row["arm"] for row in found["objectives"][0]["arms"]]
    if len(ranked) > SERIES:
        ranked = list(dict.fromkeys([*ranked[: SERIES - 2], found["reference"] or ranked[SERIES - 2], *ranked[::-1]]))
    curves = {line["arm"]: line for line in found["curves"]}
    return [{**curves[arm], "arm": curves[arm]["title"]} for arm in ranked if arm in curves][:SERIES]


def _curve_scale(lines: Sequence[Mapping[str, Any]]) -> Scale:
    return Scale.of(lines[0]["metric"], (), [point["mean"] for line in lines for point in line["points"]])


def _of(scale: Scale) -> str:
    return f"Effects on {scale.title}"


def _against(result: Mapping[str, Any]) -> str:
    reference = next((row["title"] for row in result["arms"] if row["reference"]), "")
    return f"Difference to {reference} in {scale_of(result).title}"


def _behind(result: Mapping[str, Any]) -> str:
    return f"Difference to {_best_title(result)} in {scale_of(result).title}"


def _best_title(result: Mapping[str, Any]) -> str:
    return next(str(row["title"]) for row in result["arms"] if row["arm"] == result["against_best"][0]["best"])


def _axis(scale: Scale) -> str:
    return f"{scale.title},{scale.points}" if scale.points else scale.title


def _unit(scale: Scale) -> str:
    return f" ({scale.points.strip()})" if scale.points else ""


def _seeds(number: int | None) -> str:
    return "more than 200" if number is None else str(number)


def _with_runs(one: Mapping[str, Any], kinds: int) -> str:
    return f"{one['value']} ({plural(one['runs'], 'run')})" if kinds > 1 else str(one["value"])


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_plain(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(one) for one in value)
    return str(value)
