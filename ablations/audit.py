"""`python -m ablations.audit DIR`: derive every number of a study's report again from the files of its trials.

Says what was checked, what differs, and what could not be checked and why. Changes nothing in DIR. Exit status:
0 nothing differs; 1 something does; 2 DIR is not the directory of a study.
"""

from __future__ import annotations

from operators.command_line import Parser, begin, conclude

if __name__ == "__main__":
    begin()  # before torch is imported

import sys
from collections.abc import Sequence
from pathlib import Path

from ablations.auditing.checks import Check
from operators.errors import InputError

SAME, DIFFERENT, WRONG_INPUT = 0, 1, 2


def audit(directory: Path) -> list[Check]:
    """All checks of the study in `directory`.

    Raises:
        InputError: it is not the directory of a study.
    """
    from ablations.auditing import evidence as evidences
    from ablations.auditing import plan_checks, report_checks, setting_checks, trial_checks

    evidence = evidences.read(directory)
    return [
        plan_checks.registration(evidence),
        plan_checks.design(evidence),
        plan_checks.environment(evidence),
        trial_checks.planned(evidence),
        trial_checks.table(evidence),
        trial_checks.storage(evidence),
        trial_checks.accuracy(evidence),
        setting_checks.configurations(evidence),
        setting_checks.tuned(evidence),
        setting_checks.data(evidence),
        *report_checks.looked(evidence),
        *report_checks.derived(evidence),
    ]


def text(checks: Sequence[Check]) -> str:
    """A table of the checks, a line for each difference, and a line for each reason of what was not checked."""
    rows = [("check", "checked", "differ", "not checked")]
    rows += [
        (each.name, f"{each.checked:,}", f"{len(each.differences):,}", f"{each.unchecked.total():,}") for each in checks
    ]
    width = max(len(row[0]) for row in rows)
    lines = [f"{name:{width}}" + "".join(f"{count:>13}" for count in counts) for name, *counts in rows]
    lines += [f"differs: {difference.line}" for each in checks for difference in each.differences]
    lines += [
        f"not checked: {each.name}: {reason} ({count:,})" for each in checks for reason, count in each.unchecked.items()
    ]
    return "".join(f"{line}\n" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the checks; the exit status."""
    parser = Parser(prog="python -m ablations.audit", description=__doc__)
    parser.add_argument("study", type=Path, metavar="DIR", help="a study's directory")
    try:
        checks = audit(parser.parse_args(arguments).study)
    except InputError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return WRONG_INPUT
    sys.stdout.write(text(checks))
    return DIFFERENT if any(each.differences for each in checks) else SAME


if __name__ == "__main__":
    conclude(main)
