"""What the command line asks for. Imports nothing that takes time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.scheduling.engines.settings import EngineSettings


@dataclass(frozen=True)
class Request:
    """A study as the command line asks for it: `node` is its YAML in plain containers, `given` overrides of run.py."""

    node: Mapping[str, Any]
    given: tuple[str, ...]
    directory: Path
    storage: str
    engine: EngineSettings

    @property
    def locks(self) -> Path:
        """Beside an SQLite file, which several directories may share; else in the study's directory."""
        if self.storage.startswith("sqlite:///"):
            file = Path(os.path.realpath(self.storage.removeprefix("sqlite:///")))
            return file.with_name(f"{file.name}.locks")
        return self.directory / "locks"
