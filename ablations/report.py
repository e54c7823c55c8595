"""`python -m ablations.report DIR`: (re)build a study's report from its directory, also while the study runs.

Leaves `report.html` (self-contained), `summary.json`, `figures/*.svg`, `table.md`, `table.tex`, and a CSV of everything
that is shown or plotted.
"""

from __future__ import annotations

from operators.command_line import Parser, begin, conclude

if __name__ == "__main__":
    begin()  # before torch is imported

import re
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from ablations.analysis.study import Study, read
from ablations.layout import PLAN, TABLE
from ablations.registration.environment_lock import LOCK
from operators.errors import InputError
from tasks.system.atomic_files import write_text

REPORT = "report.html"
LONGEST = 120
"""Characters of a figure's file name, without its ending."""


def build(study_dir: Path) -> Path:
    """Analyse the trials that have ended and write the report.

    Returns:
        the path of report.html.

    Raises:
        InputError: `study_dir` is not the directory of a study, or its files do not fit each other.
    """
    study = read(study_dir)
    from ablations.analysis.summary import analyse  # here, since refusing a directory needs none of it

    texts = pages(study, analyse(study))
    folder = study_dir / "figures"
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        write_text(study_dir / name, text)
    for old in folder.glob("*.svg"):
        if f"figures/{old.name}" not in texts:
            old.unlink()
    return study_dir / REPORT


def pages(study: Study, summary: Mapping[str, Any]) -> dict[str, str]:
    """Path in the study's directory -> content, of all that is made from the summary; report.html is the last."""
    from ablations.reporting import formats, sections, tables
    from ablations.reporting.elements import figures, page

    texts = {f"{name}.csv": formats.csv_text(rows) for name, rows in tables.everything(summary).items()}
    texts |= _arm_tables(summary)
    beside = [name for name in (PLAN, LOCK) if (study.path / name).is_file()]
    elements = [*sections.report(summary, [*beside, "summary.json", TABLE, *texts, "figures/"])]
    drawn: dict[str, str] = {}
    for figure in figures(elements):
        drawn[_file_name(figure.name, drawn)] = figure.file
    texts |= {f"figures/{name}": text for name, text in drawn.items()}
    return {**texts, REPORT: page(f"{summary['name']}: report", elements)}


def _file_name(figure: str, taken: Mapping[str, Any]) -> str:
    """Of a figure: plain letters, no longer than file systems take, and none that is `taken`."""
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", figure)
    if len(name) > LONGEST or f"{name}.svg" in taken:
        name = f"{name[:LONGEST]}-{sha256(figure.encode()).hexdigest()[:8]}"
    return f"{name}.svg"


def _arm_tables(summary: Mapping[str, Any]) -> dict[str, str]:
    """Name of a file -> the arms of every block and objective in its format."""
    from ablations.reporting import formats, tables

    markdown, latex = [f"{summary['answer']}\n"], []
    for block in summary["blocks"]:
        for result in block["objectives"]:
            header, rows = tables.arm_table(result, summary["level"])
            caption = f"{summary['name']}, block {block['name']}: {block['design']}"
            markdown.append(f"**{caption}**\n\n{formats.markdown(header, rows)}")
            latex.append(formats.latex(header, rows, caption))
    return {"table.md": "\n".join(markdown), "table.tex": "\n".join(latex)} if latex else {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the report and say where it is; exit status 2 with one line on wrong input."""
    parser = Parser(prog="python -m ablations.report", description=__doc__)
    parser.add_argument("study", type=Path, metavar="DIR", help="a study's directory")
    try:
        given = parser.parse_args(arguments)
        path = build(given.study)
    except InputError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"error: the report cannot be written: {error}\n")
        return 1
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    conclude(main)
