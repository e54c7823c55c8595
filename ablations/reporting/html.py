"""The report's page: its style, tables, figures and sections as HTML that needs nothing from outside."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from ablations.reporting.figures import NARROW, WIDE
from ablations.reporting.svg import COLOURS, STYLE, Canvas
from tasks.system.reading import check_file

SHEET = 480
"""Widest sheet of samples, in pixels."""

PAGE = """
* { box-sizing: border-box; }
html { color-scheme: light dark; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .2rem 0 .6rem; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 .6rem; padding-top: .9rem; border-top: 2px solid var(--ink); }
h3 { font-size: 1.05rem; margin: 1.9rem 0 .5rem; }
p { max-width: 46rem; margin: .5rem 0; }
.soft, figcaption, .study { color: var(--soft); }
.study { font-size: .95rem; margin: 0; }
.answer { font-size: 1.2rem; line-height: 1.45; max-width: 54rem; margin: 1rem 0; padding: .1rem 0 .1rem 1rem;
  border-left: 4px solid var(--mark); }
.notes { max-width: 54rem; padding: .6rem 1rem .7rem; border: 1px solid var(--rule); border-radius: 6px; }
.notes h2 { font-size: 1rem; border: 0; margin: 0 0 .3rem; padding: 0; }
.notes ul { margin: 0; padding-left: 1.2rem; }
.notes li { margin: .25rem 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem .3rem 0; text-align: right; vertical-align: top; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; white-space: normal; min-width: 4.2rem; }
th:first-child, td:first-child { text-align: left; }
td:first-child { white-space: normal; min-width: 9rem; overflow-wrap: break-word; }
tr.strong td { font-weight: 600; }
table.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.facts td:first-child { white-space: nowrap; min-width: 0; color: var(--soft); }
figure { margin: .8rem 0 1.2rem; }
figcaption { font-size: .88rem; max-width: 46rem; }
svg.figure { display: block; width: 100%; height: auto; }
.narrow { display: none; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: .6rem 1.4rem; }
.sheets img { width: 100%; image-rendering: pixelated; border: 1px solid var(--rule); display: block; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--soft); }
a { color: var(--mark); }
@media (max-width: 640px) { body { padding: 1rem .9rem 3rem; } h1 { font-size: 1.5rem; } .answer { font-size: 1.08rem; }
  .wide { display: none; } .narrow { display: block; } .scroll { margin-right: -.9rem; } }
@media print { body { max-width: none; padding: 0; font-size: 10.5pt; } figure, tr, .answer, .notes
  { break-inside: avoid; } h2, h3 { break-after: avoid; } .scroll { overflow: visible; } table { font-size: 8pt; }
  th, td { padding-right: .4rem; } .wide { display: block; } .narrow { display: none; } }
"""


def page(title: str, body: Sequence[str]) -> str:
    """The whole file."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{COLOURS}{STYLE}{PAGE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{escape(text)}</p>"


def heading(text: str, depth: int) -> str:
    """A heading."""
    return f"<h{depth}>{escape(text)}</h{depth}>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], strong: Sequence[int] = (), kind: str = "") -> str:
    """A table that scrolls by itself where the page is too narrow; rows of the numbers in `strong` stand out."""
    head = f"<thead><tr>{''.join(f'<th>{escape(text)}</th>' for text in header)}</tr></thead>" if header else ""
    body = "".join(
        f"<tr{' class=strong' if place in strong else ''}>{''.join(map(_cell, row))}</tr>\n"
        for place, row in enumerate(rows)
    )
    return f'<div class="scroll"><table{f" class={kind}" if kind else ""}>{head}<tbody>{body}</tbody></table></div>'


def _cell(text: str) -> str:
    """Names of arms may be broken after a plus; the sign of a number stays with it."""
    return f"<td>{text[:1] and escape(text[0]) + escape(text[1:]).replace('+', '+<wbr>')}</td>"


def figure(draw: Callable[[int], Canvas], caption: str) -> str:
    """A figure, drawn for wide and for narrow pages."""
    return (
        f'<figure><div class="wide">{draw(WIDE).render()}</div><div class="narrow">{draw(NARROW).render()}</div>'
        f"{f'<figcaption>{escape(caption)}</figcaption>' if caption else ''}</figure>"
    )


def grid(figures: Sequence[str], kind: str = "") -> str:
    """Small figures beside each other, as many as there is room for."""
    return f'<div class="grid {kind}">{"".join(figures)}</div>'


def small(canvas: Canvas, caption: str) -> str:
    """A figure of one size, for a grid."""
    return f"<figure>{canvas.render()}<figcaption>{escape(caption)}</figcaption></figure>"


def sheet(found: Mapping[str, Any]) -> str:
    """A sheet of samples, inside the page."""
    try:
        check_file(Path(found["path"]))
        with Image.open(Path(found["path"])) as image:
            image.load()
            if image.width > SHEET:
                image.thumbnail((SHEET, 4 * SHEET))
            data = io.BytesIO()
            image.save(data, "PNG", optimize=True)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        return paragraph(f"{found['path']} cannot be read: {error}", "soft")
    text = base64.b64encode(data.getvalue()).decode()
    caption = f"{found['title']}, seed {found['seed']}"
    return (
        f'<figure><img alt="samples of {escape(caption, quote=True)}" src="data:image/png;base64,{text}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def folded(summary: str, inside: str) -> str:
    """What is there for those who ask."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def notes(lines: Sequence[str]) -> str:
    """What a reader has to know before the numbers."""
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<section class="notes"><h2>Before reading the numbers</h2><ul>{items}</ul></section>'
