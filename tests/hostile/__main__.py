"""`python -m tests.hostile [PATTERN …]`: drive the cases whose labels match, and print a table of those that fail."""

from __future__ import annotations

import argparse
import fnmatch
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path

from tests.hostile.cases import collect
from tests.hostile.drive import AT_ONCE, Drive, Verdict
from tests.hostile.store import Store


def table(verdicts: Sequence[Verdict]) -> str:
    """Markdown: per area the cases that fail, the command, and what is wrong."""
    total = Counter(verdict.case.area for verdict in verdicts)
    bad = Counter(verdict.case.area for verdict in verdicts if verdict.faults)
    lines = ["| area | cases | failing |", "| --- | --- | --- |"]
    lines += [f"| {area} | {total[area]} | {bad[area]} |" for area in sorted(total)]
    lines += [f"| all | {total.total()} | {bad.total()} |"]
    for area in sorted(bad):
        lines += ["", f"## {area}", "", "| case | command | faults | seconds |", "| --- | --- | --- | --- |"]
        for verdict in verdicts:
            if verdict.case.area == area and verdict.faults:
                cells = [verdict.case.name, f"`{_command(verdict)}`", "<br>".join(verdict.faults)]
                row = " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
                lines.append(f"| {row} | {verdict.outcome.seconds:.0f} |")
    return "\n".join(lines) + "\n"


def _command(verdict: Verdict) -> str:
    case = verdict.case
    settings = [
        f"{key}={shlex.quote(value)}" if value is not None else f"-u {key}" for key, value in case.environment.items()
    ]
    words = [*(["env", *settings] if settings else []), *(f"prlimit --{limit}" for limit in case.limits)]
    words += [f"[/dev/shm of {case.mount}]"] if case.mount else []
    return " ".join([*words, "python", case.command, case.redirect]).strip()[:600]


def main() -> int:
    """Drive; exit status 1 if a case fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="of labels, such as 'trees/*' (all)")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"cases at a time ({AT_ONCE})")
    parser.add_argument("--patience", type=float, default=1.0, help="factor of all time limits, for a busy machine (1)")
    parser.add_argument("--store", type=Path, help="folder that keeps the good runs from one drive to the next")
    parser.add_argument("--out", type=Path, help="file of the table")
    given = parser.parse_args()
    cases = [
        replace(case, seconds=case.seconds * given.patience)
        for label, case in collect().items()
        if not given.patterns or any(fnmatch.fnmatch(label, pattern) for pattern in given.patterns)
    ]
    began = time.monotonic()
    verdicts: dict[str, Verdict] = {}
    broken: list[str] = []
    with tempfile.TemporaryDirectory(prefix="hostile-") as scratch:
        drive = Drive(cases, Path(scratch), Store(given.store or Path(scratch, "store")), given.at_once)
        try:
            labels = {future: label for label, future in drive.verdicts.items()}
            for future in as_completed(labels):
                if (error := future.exception()) is not None:
                    broken.append(labels[future])
                    sys.stdout.write(f"MAKE {labels[future]} cannot be made: {error!r}\n")
                    continue
                verdict = future.result()
                verdicts[verdict.case.label] = verdict
                mark = "FAIL" if verdict.faults else "ok"
                sys.stdout.write(f"{mark:4} {verdict.outcome.seconds:6.1f} s  {verdict.case.label}\n")
                for fault in verdict.faults:
                    sys.stdout.write(f"       {fault}\n")
                sys.stdout.flush()
        finally:
            drive.close()
    text = table([verdicts[case.label] for case in cases if case.label in verdicts])
    text += f"\n{len(cases)} cases, {given.at_once} at a time, in {time.monotonic() - began:.0f} s.\n"
    if given.out:
        given.out.write_text(text, errors="backslashreplace")
    else:
        sys.stdout.write(text)
    return 1 if broken or any(verdict.faults for verdict in verdicts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
