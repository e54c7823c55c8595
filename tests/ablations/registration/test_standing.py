"""What a report says of the registration, above the numbers and below them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablations.analysis.summary import derive
from ablations.registration import analysis_plan, document, standing
from ablations.registration.document import Document, Registration
from ablations.reporting.elements import Paragraph, ReportTable
from ablations.reporting.registration_section import registration

PLAN: dict[str, Any] = {"name": "s", "seeds": 3, "code": analysis_plan.code(), "environments": ["abc"]}
EARLY, LATE = "2026-01-01T10:00:00.000+00:00", "2026-01-02T00:00:00.000+00:00"


def written(ended: int = 0) -> Document:
    return Document(PLAN, Registration("2026-01-01T12:00:00.000+00:00", document.digest(PLAN), ended), ())


def test_plan_registered_in_time_needs_no_note() -> None:
    found = standing.facts(written(), [LATE])
    assert found is not None
    assert (found["first_trial"], found["late"], found["faults"]) == (LATE, False, [])
    assert standing.notes(found) == []
    assert standing.facts(written(), []) is not None


def test_plan_registered_late_is_told() -> None:
    for document_, begun in ((written(), [LATE, EARLY]), (written(ended=2), [LATE])):
        (note,) = standing.notes(standing.facts(document_, begun))
        assert note.startswith("the plan was registered only after trials had begun")


def test_amendments_with_results_at_hand_stand_above_the_numbers() -> None:
    more = written().amended({**PLAN, "seeds": 5}, LATE, 9).amended({**PLAN, "seeds": 5, "storage": "x"}, LATE, 9)
    assert standing.notes(standing.facts(more, [LATE])) == [
        "seeds were raised from 3 to 5 after results existed (9 trials had ended), on 2026-01-02"
    ]


def test_edits_and_other_code_are_told() -> None:
    edited = Document({**PLAN, "code": "def"}, written().registration, ())
    first, second = standing.notes(standing.facts(edited, [LATE]))
    assert first.startswith("study.yaml was edited: the plan is not the one that was registered")
    assert second.startswith("the code that made this report is not the one that was registered")


def test_report_shows_digest_times_and_amendments() -> None:
    more = written().amended({**PLAN, "seeds": 5}, LATE, 9)
    elements = list(registration({"registration": standing.facts(more, [LATE]), "code": "c0de"}))
    facts, amendments = [element for element in elements if isinstance(element, ReportTable)]
    shown = {str(name): str(value) for name, value in facts.rows}
    assert shown["digest of the plan (SHA-256)"] == document.digest(PLAN)
    assert shown["registered"] == "2026-01-01 12:00:00 UTC"
    assert shown["first trial began"] == "2026-01-02 00:00:00 UTC"
    assert shown["the plan today"].startswith("has this digest")
    assert list(amendments.rows[0][:2]) == ["2026-01-02 00:00:00 UTC", "9"]
    text = " ".join(element.text for element in elements if isinstance(element, Paragraph))
    assert "python -m ablations study=DIR/study.yaml" in text
    assert "python -m ablations.audit DIR" in text


def test_study_that_was_never_registered_says_so() -> None:
    assert standing.facts(Document(PLAN, None, ()), [EARLY]) is None
    texts = [element.text for element in registration({"registration": None}) if isinstance(element, Paragraph)]
    assert "The plan was not registered" in texts[0]


def test_summary_holds_the_registration(tmp_path: Path) -> None:
    from ablations.analysis import study
    from tests.ablations import fake_study

    summary = derive(study.read(fake_study.grid(tmp_path / "s", {"size": [3, 5]})))
    assert (summary["registration"], summary["code"]) == (None, analysis_plan.code())
