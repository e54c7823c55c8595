"""`python -m tests.authors DIR`: clone all repositories that cards name into DIR, without their large files.

Then `OPERATOR_ZOO_AUTHORS=DIR python -m pytest -m slow tests/authors` compares the mixers with the authors' modules;
with `--log-cli-level=INFO` it says how far they are apart.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import operators
from models.published import MODELS
from tests.authors.source import named


def repositories() -> list[str]:
    """All that cards and published models name."""
    texts = [operators.describe(mixer).code for mixer in operators.names()]
    texts += [model.source for model in MODELS.values()]
    return sorted({repository for text in texts for repository in named(text)})


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    for repository in repositories():
        clone = Path(sys.argv[1], repository)
        if not clone.exists():
            address = f"https://github.com/{repository}"
            subprocess.run(["git", "clone", "--bare", "--filter=blob:limit=1m", address, str(clone)], check=True)


if __name__ == "__main__":
    main()
