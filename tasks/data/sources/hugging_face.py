"""Hugging Face `datasets`, which this project reads parquet files and the Hub through."""

from __future__ import annotations

import sys
from typing import Any


def library() -> Any:
    """The module `datasets`; without a terminal, without its progress bars."""
    import datasets  # here, since most data need none of it

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    return datasets
