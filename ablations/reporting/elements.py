"""What a report is made of, and its page as HTML that needs nothing from outside: text, tables, figures, sheets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ablations.reporting.svg import Canvas

WIDE, NARROW = 760, 350
"""Widths of figures in pixels: for laptops and paper, and for phones."""


@dataclass(frozen=True)
class Heading:
    """A heading; `depth` 1 is the page's own."""

    text: str
    depth: int
    part: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Paragraph:
    """Plain text, of a class of `page.css`."""

    text: str
    kind: str = ""
    part: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Notes:
    """What a reader has to know before the numbers."""

    lines: Sequence[str]
    part: ClassVar[str] = "notes"


@dataclass(frozen=True)
class Link:
    """A file or folder, by its path in the study's directory, so that the link holds where that is moved to."""

    text: str
    path: str


@dataclass(frozen=True)
class ReportTable:
    """A table that scrolls by itself where the page is too narrow; rows of the numbers in `strong` stand out.

    `kind` is a class of `page.css`: `facts` for texts, `cards` for tables whose rows stand below each other on phones.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str | Link]]
    strong: Sequence[int] = ()
    kind: str = ""
    part: ClassVar[str] = "table"


@dataclass(frozen=True)
class Figure:
    """A figure, drawn for a width in pixels.

    Attributes:
        draw: for wide pages and for narrow ones; a `small` figure is drawn once, for a grid.
        name: of its file; a figure without one is on the page alone.
    """

    draw: Callable[[int], Canvas]
    caption: str = ""
    name: str = ""
    small: bool = False
    part: ClassVar[str] = "figure"

    @property
    def wide(self) -> Markup:
        return Markup(self.draw(WIDE).render())

    @property
    def narrow(self) -> Markup:
        return Markup(self.draw(NARROW).render())

    @property
    def file(self) -> str:
        """The content of an SVG file."""
        return self.draw(NARROW if self.small else WIDE).render(alone=True)


@dataclass(frozen=True)
class Sheet:
    """A sheet of samples inside the page: a PNG in base 64."""

    caption: str
    data: str
    part: ClassVar[str] = "sheet"


@dataclass(frozen=True)
class Grid:
    """Small elements beside each other, as many as there is room for."""

    elements: Sequence[Figure | Sheet | Paragraph]
    kind: str = ""
    part: ClassVar[str] = "grid"


@dataclass(frozen=True)
class Folded:
    """A table that is there for those who ask."""

    summary: str
    inside: ReportTable
    part: ClassVar[str] = "folded"


@dataclass(frozen=True)
class FileLinks:
    """Links to what lies beside the page."""

    links: Sequence[Link]
    part: ClassVar[str] = "files"


Element = Heading | Paragraph | Notes | ReportTable | Figure | Sheet | Grid | Folded | FileLinks


def page(title: str, elements: Iterable[Element]) -> str:
    """The whole file. Every text is escaped; links lead to files of the study's directory alone."""
    return _ENVIRONMENT.get_template("page.html").render(title=title, elements=elements)


def figures(elements: Iterable[Element]) -> Iterator[Figure]:
    """The figures that have files."""
    for element in elements:
        inside = element.elements if isinstance(element, Grid) else (element,)
        yield from (figure for figure in inside if isinstance(figure, Figure) and figure.name)


def _breakable(text: str) -> Markup:
    """Names of arms may be broken after a plus; the sign of a number stays with it."""
    return Markup("{}{}").format(text[:1], Markup("+<wbr>").join(text[1:].split("+")))


_ENVIRONMENT = Environment(
    loader=PackageLoader("ablations.reporting"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["breakable"] = _breakable
