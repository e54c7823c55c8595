"""Hooks of the site's build: pages and pictures made from cards and notebooks, and the pages' place in the menu.

Nothing that is generated is written into `docs/`: MkDocs gets the contents in memory.
"""

from __future__ import annotations

import io
from pathlib import Path

import notebooks
import pages
import torch
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import operators
from operators import drawing

NOTEBOOKS = {"new_mixer": "A new mixer in fifteen minutes", "study": "A study from question to answer"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put one page for each registered mixer into the menu, after the overview."""
    assert config.nav is not None
    (mixers,) = [entry["Mixers"] for entry in config.nav if isinstance(entry, dict) and "Mixers" in entry]
    mixers += [{name: f"mixers/{name}.md"} for name in operators.names()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the mixers, their pictures, and the notebooks as pages."""
    torch.set_num_threads(1)
    files.append(File.generated(config, "mixers/index.md", content=pages.overview()))
    for name in operators.names():
        page = pages.mixer_page(name)
        files.append(File.generated(config, f"mixers/{name}.md", content=page.markdown))
        for picture, figures in page.figures.items():
            for theme, figure in figures.items():
                buffer = io.BytesIO()
                drawing.save(figure, buffer)
                path = f"mixers/{name}-{picture}-{theme}.png"
                files.append(File.generated(config, path, content=buffer.getvalue()))
    for name in NOTEBOOKS:
        source = Path(config.docs_dir) / "notebooks" / f"{name}.ipynb"
        files.append(File.generated(config, f"notebooks/{name}.md", content=notebooks.to_markdown(source)))
    return files
