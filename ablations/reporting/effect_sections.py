"""Of a block, for one objective: its effects, interactions and power."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ablations.analysis.answer import scale_of
from ablations.analysis.words import DASH, Scale, minus, p_said, p_value, plural, told
from ablations.reporting import figures
from ablations.reporting.elements import Element, Figure, Folded, Grid, Heading, Paragraph, ReportTable
from ablations.reporting.figures import Bar

MOST_PLOTS = 6
MOST_ROWS = 100


def effects(result: Mapping[str, Any], level: float, name: str) -> Iterator[Element]:
    """The effects in a figure, whose file is named after `name`, and in tables; negative controls in words."""
    bars, scale = _effect_bars(result), scale_of(result)
    if not bars:
        return
    fit = result["fit"]
    yield Heading(_of(scale), 3)
    controls = " Hollow: negative controls." if any(bar.hollow for bar in bars) else ""
    freedom = f"{plural(fit['residual_df'], 'degree')} of freedom"
    yield Figure(
        partial(figures.forest, bars, scale, _of(scale), scale.axis_title),
        f"{_meaning(result)} {100 * level:g} % t intervals, each for its effect alone, from the factorial model "
        "blocked by seed. Their errors are those of the effect's own estimates, seed by seed, moderated by the pooled "
        f"residual ({freedom}, a run's standard deviation {scale.value(fit['residual_sd'])}{scale.points}).{controls}",
        f"effects-{name}",
    )
    for control in result["controls"]:
        yield Paragraph(_control(control, scale, level))
    together = f"for all {result['family']} together"
    images = ["for other test images too", f"{together}, other images too"] if _of_images(result["effects"]) else []
    header = ["effect", f"estimate{scale.in_brackets}", "interval", "p", together, "p together", *images,
              "in residual sd"]  # fmt: skip
    rows = [
        [
            effect["subject"],
            scale.signed(effect["estimate"]),
            scale.interval(effect["low"], effect["high"]),
            p_value(effect["p"]),
            scale.interval(effect["low_together"], effect["high_together"]),
            p_value(effect["p_together"]),
            *(
                [
                    scale.interval(effect["low_images"], effect["high_images"]),
                    scale.interval(effect["low_together_images"], effect["high_together_images"]),
                ]
                if images
                else []
            ),
            DASH if effect["standardised"] is None else minus(f"{effect['standardised']:+.2f}"),
        ]
        for effect in result["effects"]
    ]
    yield from (Paragraph(_largest(effect, scale, level)) for effect in result["effects"] if told(effect) == "_largest")
    yield Folded("The effects in numbers", ReportTable(header, rows))
    aliases = [
        [effect["subject"], ", ".join(f"{minus(f'{share:+.3g}')} {name}" for name, share in effect["aliases"].items())]
        for effect in result["effects"]
        if effect["aliases"]
    ]
    if aliases:
        yield Folded("Aliases: what an estimate is the sum of", ReportTable(["effect", "and"], aliases, kind="facts"))
    tests = [
        [term["term"], str(term["df"]), DASH if term["f"] is None else f"{term['f']:.3g}", p_value(term["p"]),
         p_value(term["p_holm"]), DASH if (eta := term["partial_eta_squared"]) is None else f"{eta:.2f}"]
        for term in result["terms"]
    ]  # fmt: skip
    yield Folded(
        "Analysis of variance, pooled residual",
        ReportTable(["term", "df", "F", "p", "Holm p", "partial eta squared"], tests),
    )


def _of_images(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the rows have intervals that hold for other test images too."""
    return any(row["low_images"] is not None for row in rows)


def _meaning(result: Mapping[str, Any]) -> str:
    """What the effects of a figure are."""
    kinds = {effect["kind"] for effect in result["effects"]}
    explanations = {
        "main": "of a factor: its mean at the second level less that at the first",
        "level": "of a level: its mean less that of the level of the reference",
        "interaction": "of an interaction: half the difference of differences",
    }
    explained = "; ".join(text for kind, text in explanations.items() if kind in kinds)
    return f"Effect {explained}; over all other factors and seeds."


def _largest(effect: Mapping[str, Any], scale: Scale, level: float) -> str:
    where = scale.interval(effect["low_largest"], effect["high_largest"])
    return (
        f"The largest effect, {effect['subject']}, has a {100 * level:g} % interval that allows for its having been "
        f"chosen ({where}): it holds the true values that go with an estimate of this size among those that exceed "
        "the runner-up's. It is the plain interval where the runner-up is far below; the nearer that is, the nearer to "
        "zero are both ends."
    )


def _control(control: Mapping[str, Any], scale: Scale, level: float) -> str:
    inside = "is zero within its interval" if control["zero_inside"] else "is NOT zero within its interval"
    text = f"Negative control {control['subject']}: {inside} ({scale.interval(control['low'], control['high'])})."
    if control["smallest_margin"] is None:
        return text
    text += f" The data show it to be smaller than {scale.value(control['smallest_margin'])}{scale.points}"
    if control["margin"] is not None:
        shown = "smaller" if control["equivalent"] else "not shown to be smaller"
        text += f", so {shown} than the declared margin of {scale.value(control['margin'])}{scale.points}"
    return f"{text} (two one-sided t tests at {100 * (1 - level):.2g} %)."


def interactions(result: Mapping[str, Any], name: str) -> Iterator[Element]:
    """The pairs of factors whose interaction is the clearest, a figure each."""
    plots = result["interactions"][:MOST_PLOTS]
    if not plots:
        return
    scale = scale_of(result)
    yield Heading("Interactions", 3)
    yield Grid(
        [
            Figure(
                partial(figures.interaction, plot, scale),
                f"{' × '.join(plot['factors'])}: {p_said(plot['p'])}",
                f"interaction-{name}-{'-'.join(plot['factors'])}",
                small=True,
            )
            for plot in plots
        ]
    )
    more = f" The {len(plots)} pairs with the smallest p of {len(result['interactions'])}." if len(
        result["interactions"]
    ) > len(plots) else ""  # fmt: skip
    yield Paragraph(
        f"{scale.titled.capitalize()}. Parallel lines: no interaction. Bars come from the pooled residual "
        f"and serve to compare the points of one plot.{more}",
        "soft",
    )


def power(result: Mapping[str, Any], power: Mapping[str, Any]) -> Iterator[Element]:
    """How many seeds show how large an effect."""
    scale, design = scale_of(result), result["power"]
    if design is None:
        return
    yield Heading("Power: how many seeds", 3)
    yield Paragraph(
        f"With {plural(len(power['seeds']), 'seed')}, a true effect of {scale.value(design['smallest_effect'])}"
        f"{scale.points} is shown with probability {design['power']:g}, all {result['family']} effects together."
    )
    finer = Scale(scale.metric, scale.factor, min(scale.digits + 1, 6))
    rows = [
        [
            f"{finer.value(row['difference'])}{scale.points}",
            _seeds(row["seeds"]),
            f"{_seeds(row['fewest'])} to {_seeds(row['most'])}",
        ]
        for row in design["seeds_for"]
    ]
    yield ReportTable(["to show an effect of", "seeds needed", "80 % interval"], rows)
    yield Paragraph("The interval is there since the noise of a run is itself an estimate from these seeds.", "soft")


def _effect_bars(result: Mapping[str, Any]) -> list[Bar]:
    return [
        Bar(effect["subject"], effect["estimate"], effect["low"], effect["high"], effect["control"])
        for effect in result["effects"]
    ]


def _of(scale: Scale) -> str:
    return f"Effects on {scale.title}"


def _seeds(number: int | None) -> str:
    return "more than 200" if number is None else str(number)
