"""The plan's registration, what was amended since, and how to repeat and to check the study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ablations.analysis.words import DASH
from ablations.reporting.elements import Element, Heading, Paragraph, ReportTable

REPEAT = "python -m ablations study=DIR/study.yaml"
AUDIT = "python -m ablations.audit DIR"


def registration(summary: Mapping[str, Any]) -> Iterator[Element]:
    """Of a study that was never registered, this is said."""
    yield Heading("Registration", 2)
    registration = summary["registration"]
    if registration is None:
        yield Paragraph("The plan was not registered: the study was begun by an older version.", "soft")
    else:
        still = "differs, see above" if registration["faults"] else "has this digest, its amendments undone"
        rows = [
            ["digest of the plan (SHA-256)", registration["digest"]],
            ["registered", _time(registration["at"])],
            ["first trial began", DASH if registration["first_trial"] is None else _time(registration["first_trial"])],
            ["the plan today", still],
            ["code that analyses", f"{registration['code']} as registered, {summary['code']} in this report"],
            [
                "environments (SHA-256)",
                f"{', '.join(registration['environments'])}: environment.lock and those beside it",
            ],
        ]
        yield ReportTable([], rows, kind="facts")
        amendments = [[_time(each["at"]), str(each["ended"]), each["change"]] for each in registration["amendments"]]
        if amendments:
            yield ReportTable(["amended", "trials ended by then", "change"], amendments)
    yield Paragraph(
        f"{REPEAT} repeats the study in a new folder, and {AUDIT} derives every number of this page again from the "
        "files of the trials; DIR is the folder of this page.",
        "soft",
    )


def _time(text: str) -> str:
    return text.replace("T", " ")[:19] + " UTC"
