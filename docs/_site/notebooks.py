"""Notebooks as pages: text as it is, code as code; outputs are not kept in the repository and are not shown."""

from __future__ import annotations

import json
from pathlib import Path


def to_markdown(path: Path) -> str:
    """The cells of a notebook as Markdown, with a link to the file below its title."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = []
    for cell in cells:
        source = "".join(cell["source"])
        texts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    title, *rest = texts
    note = f"[Download the notebook]({path.name}); continuous integration runs every cell of it."
    return "\n\n".join([title, note, *rest]) + "\n"
