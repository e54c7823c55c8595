"""The documents that show commands and code: README and the pages of the site."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted(
    path for path in (ROOT / "docs").rglob("*.md") if path.parent.name not in ("results", "_site", "notebooks")
)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    path: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def blocks(path: Path, language: str) -> list[Block]:
    """The fenced blocks of one language, with the lines where their text begins."""
    text = path.read_text(encoding="utf-8")
    return [
        Block(path, text.count("\n", 0, match.start(2)) + 1, match[1], match[2])
        for match in _BLOCK.finditer(text)
        if match[1] == language
    ]


def commands(path: Path) -> list[tuple[str, list[str]]]:
    """(place, words) of every `python` command of the shell blocks, comments left out and broken lines joined."""
    found = []
    for block in blocks(path, "bash"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and words[0] in ("exec", "srun"):
                words = words[1:]
            if words[:1] == ["python"]:
                found.append((f"{block}: {' '.join(words)}", words[1:]))
    return found
