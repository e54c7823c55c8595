"""What a report says of a study's registration."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ablations.registration import analysis_plan
from ablations.registration.document import CODE, ENVIRONMENTS, Document


def facts(document: Document, begun: Sequence[str]) -> dict[str, Any] | None:
    """Digest, times, and amendments of the plan; None of a study that was never registered.

    Args:
        document: the content of `study.yaml`.
        begun: when trials began, as ISO 8601 has it.
    """
    registration = document.registration
    if registration is None:
        return None
    first = min(begun, key=datetime.fromisoformat, default=None)
    early = first is not None and datetime.fromisoformat(first) < datetime.fromisoformat(registration.at)
    return {
        "digest": registration.digest,
        "at": registration.at,
        "ended": registration.ended,
        "first_trial": first,
        "late": early or registration.ended > 0,
        "faults": document.faults,
        "code": document.plan.get(CODE),
        "environments": list(document.plan.get(ENVIRONMENTS, [])),
        "amendments": [
            {"at": each.at, "ended": each.ended, "change": each.sentence, "matters": each.matters}
            for each in document.amendments
        ],
    }


def notes(standing: dict[str, Any] | None) -> list[str]:
    """What a reader has to know before the numbers, a line each."""
    if standing is None:
        return []
    lines = [f"study.yaml was edited: {fault}" for fault in standing["faults"]]
    if standing["late"]:
        lines.append(f"the plan was registered only after trials had begun; {standing['ended']} had ended")
    lines += [f"{each['change']}, on {each['at'][:10]}" for each in standing["amendments"] if each["matters"]]
    if standing["code"] != analysis_plan.code():
        lines.append(
            "the code that made this report is not the one that was registered, with which it was to be analysed"
        )
    return lines
