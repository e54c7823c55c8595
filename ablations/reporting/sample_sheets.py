"""Sheets of samples, read from run directories and made small enough for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ablations.reporting.elements import Element, Grid, Heading, Paragraph, Sheet
from tasks.system.reading import check_file

WIDEST = 480
"""Pixels across, above which a sheet is made smaller for the page."""
MOST_SHEETS = 12


def sections(sheets: Sequence[Mapping[str, Any]]) -> Iterator[Element]:
    """Sheets arm by arm, if there are any."""
    if sheets:
        yield Heading("Samples", 3)
        yield Grid([load(sheet) for sheet in sheets[:MOST_SHEETS]], "sheets")
        if len(sheets) > MOST_SHEETS:
            yield Paragraph(f"{MOST_SHEETS} of {len(sheets)} arms; the others lie in the run directories.", "soft")


def load(sheet: Mapping[str, Any]) -> Sheet | Paragraph:
    """The sheet at `path`, or why it cannot be shown."""
    try:
        check_file(Path(sheet["path"]))
        with Image.open(Path(sheet["path"])) as image:
            image.load()
            if image.width > WIDEST:
                image.thumbnail((WIDEST, 4 * WIDEST))
            data = io.BytesIO()
            image.save(data, "PNG", optimize=True)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        return Paragraph(f"{sheet['path']} cannot be read: {error}", "soft")
    return Sheet(f"{sheet['title']}, seed {sheet['seed']}", base64.b64encode(data.getvalue()).decode())
