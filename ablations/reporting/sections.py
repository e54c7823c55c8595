"""The report, section by section, from a summary alone (and the sheets of samples that it names)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ablations.analysis.answer import scale_of
from ablations.analysis.words import DASH, plural, seconds
from ablations.layout import STATES
from ablations.reporting import arm_sections, effect_sections, front_sections, sample_sheets, search_sections
from ablations.reporting.axes import sections as axes
from ablations.reporting.elements import Element, FileLinks, Folded, Heading, Link, Notes, Paragraph, ReportTable
from ablations.reporting.published_section import published
from ablations.reporting.registration_section import registration

MOST_TRIALS = 2000


def report(summary: Mapping[str, Any], files: Sequence[str]) -> Iterator[Element]:
    """The whole page; `files` lie beside it."""
    yield from _opening(summary)
    for block in summary["blocks"]:
        yield from _block(block, summary)
    yield from published(summary["published"], summary["objectives"][0]["metric"], summary["level"])
    if summary["search"]:
        yield from search_sections.results(summary)
    yield from _closing(summary, files)


def _opening(summary: Mapping[str, Any]) -> Iterator[Element]:
    """Question, answer, how far the study is, and what to know first."""
    progress, level = summary["progress"], summary["level"]
    yield Paragraph(f"study {summary['name']}", "study")
    yield Heading(summary["question"] or summary["name"], 1)
    yield Paragraph(summary["answer"], "answer")
    counts = [f"{progress[state]} {state}" for state in STATES if progress[state]]
    counted = f"{plural(progress['planned'], 'trial')} planned: {', '.join(counts)}"
    yield Paragraph(
        f"{counted}; {seconds(progress['seconds'])} of runs in all. Intervals hold {100 * level:g} % and are over "
        "seeds (another training run) unless said otherwise.",
        "soft",
    )
    if summary["notes"]:
        yield Notes(summary["notes"])
    yield from _looks(summary)


def _looks(summary: Mapping[str, Any]) -> Iterator[Element]:
    """What a study that adds seeds found at each look."""
    if not summary["looks"]:
        return
    scale = scale_of(summary["blocks"][0]["objectives"][0])
    rows = [
        [
            str(look["seeds"]),
            f"{look['enough']} of {look['intervals']}",
            DASH if look["widest"] is None else f"{scale.half(look['widest'])}{scale.points}",
            "stop" if look["stop"] else "more seeds",
        ]
        for look in summary["looks"]
    ]
    header = ["seeds", "intervals of the answer that are enough", "the widest of them all", "so"]
    yield Folded(plural(len(rows), "look"), ReportTable(header, rows))


def _block(block: Mapping[str, Any], summary: Mapping[str, Any]) -> Iterator[Element]:
    """A block of a factorial study."""
    several = len(summary["blocks"]) > 1
    yield Heading(f"Block {block['name']}" if several else "Results", 2)
    factors = "; ".join(f"{name}: {', '.join(levels)}" for name, levels in block["factors"].items())
    controls = block["negative_controls"]
    declared = f" Declared without effect in advance: {', '.join(controls)}." if controls else ""
    yield Paragraph(f"{block['design']}, {plural(len(block['seeds']), 'seed')}. {factors}.{declared}", "soft")
    for result in block["objectives"]:
        if len(block["objectives"]) > 1:
            yield Heading(scale_of(result).title.capitalize(), 3)
        name = f"{block['name']}-{result['metric']}"
        yield from axes.budgets(result, summary["level"], name)
        yield from axes.datasets(result, summary["level"], name)
        yield from effect_sections.effects(result, summary["level"], name)
        yield from arm_sections.arms(result, summary["level"], name)
        yield from arm_sections.best(result, summary["level"], name)
        yield from front_sections.of_block(result["fronts"], summary["level"], name)
        yield from effect_sections.interactions(result, name)
        yield from arm_sections.images(result, summary["level"])
        yield from effect_sections.power(result, block)
    yield from arm_sections.curves(block)
    yield from sample_sheets.sections(block["sheets"])
    yield from axes.effort(block, summary["level"])
    yield from arm_sections.tuning(block)


def _closing(summary: Mapping[str, Any], files: Sequence[str]) -> Iterator[Element]:
    """Where the numbers come from, the plan, and the files behind the page."""
    yield from registration(summary)
    yield Heading("Provenance", 2)
    rows = [
        [name, "; ".join(_with_runs(value, len(values)) for value in values)]
        for name, values in summary["provenance"].items()
    ]
    yield ReportTable([], rows, kind="facts") if rows else Paragraph("No run has left its provenance yet.", "soft")
    plan = [[key, _plain(value)] for key, value in summary["plan"].items()]
    yield Folded("The plan of the study", ReportTable([], plan, kind="facts"))
    yield Heading("Files", 2)
    yield FileLinks([Link(name, name) for name in files])
    yield from _trials(summary["trials"])


def _with_runs(value: Mapping[str, Any], kinds: int) -> str:
    return f"{value['value']} ({plural(value['runs'], 'run')})" if kinds > 1 else str(value["value"])


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return str(value)


def _trials(trials: Sequence[Mapping[str, Any]]) -> Iterator[Element]:
    """Each trial with a link to its run directory."""
    header = ["trial", "block", "arm", "seed", "state", "time", "run directory"]
    rows = [
        [
            str(trial["number"]),
            trial["block"],
            trial["arm"],
            str(trial["seed"]),
            trial["state"],
            seconds(trial["seconds"]),
            Link(trial["run_dir"], f"{trial['run_dir']}/") if trial["run_dir"] else DASH,
        ]
        for trial in trials[:MOST_TRIALS]
    ]
    more = f", the first {MOST_TRIALS:,} of which are listed" if len(trials) > MOST_TRIALS else ""
    yield Folded(f"{plural(len(trials), 'trial')} and their runs{more}", ReportTable(header, rows))
