"""Tables as Markdown, LaTeX and CSV; every text is escaped as the format asks for."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ablations.analysis.words import DASH, MINUS

_MARKDOWN = str.maketrans({letter: f"\\{letter}" for letter in "\\|*`"})
_MARKDOWN_INSIDE = re.compile(r"<(?=[A-Za-z/!?])|(?<!\w)_|_(?!\w)|(?<=\])\(")
"""Where a tag, an emphasis or a link would begin."""
_LATEX = str.maketrans(
    {
        **{letter: f"\\{letter}" for letter in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        MINUS: "$-$",
        "±": r"$\pm$",
        "×": r"$\times$",
        DASH: "---",
    }
)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    body = [[_markdown(text) for text in row] for row in (header, *rows)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (body[0], ["---"] * len(header), *body[1:]))


def latex(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """A table in LaTeX, with booktabs; the columns after the first are aligned to the right."""
    lines = [
        r"\begin{table}",
        *([rf"\caption{{{_latex(caption)}}}"] if caption else []),
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"\toprule",
        _latex_row(header),
        r"\midrule",
        *map(_latex_row, rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the union of their columns; what has no value is empty."""
    text = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _markdown(text: str) -> str:
    return _MARKDOWN_INSIDE.sub(r"\\\g<0>", " ".join(text.split()).translate(_MARKDOWN))


def _latex(text: str) -> str:
    return " ".join(text.split()).translate(_LATEX)


def _latex_row(row: Sequence[str]) -> str:
    return " & ".join(map(_latex, row)) + r" \\"
