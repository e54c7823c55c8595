"""What the README says runs, runs."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests import processes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def command_block(name: str) -> list[str]:
    found = re.search(rf"<!-- {name} -->\n```bash\n(.*?)```", README, re.DOTALL)
    assert found, f"README has no block marked {name}"
    return found[1].strip().splitlines()


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) == 2


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.strip().splitlines()[-1][:40])
def test_snippet(snippet: str) -> None:
    # A process of its own: one of them registers a mixer, which other tests would find.
    done = processes.run(snippet, ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("further", "accuracy"),
    [
        pytest.param([], 0.7, marks=pytest.mark.slow, id="whole"),
        pytest.param(["trainer.max_steps=40"], 0.3, id="short"),
    ],
)
def test_main_command(tmp_path: Path, further: list[str], accuracy: float) -> None:
    """The README's first block, without the installation, to a metrics.json that says ok."""
    install, run = command_block("main command")
    assert install == "pip install -e ."
    python, program, *arguments = shlex.split(run)
    assert python == "python"
    done = processes.run(
        f"import runpy; runpy.run_path({program!r}, run_name='__main__')",
        ROOT,
        (*arguments, *further, f"hydra.run.dir={tmp_path}"),
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["status"] == "ok"
    assert metrics["mixer"] == "pde_ssm"
    assert metrics["test/accuracy"] > accuracy
    assert "run directory: " in done.stdout
    assert f"{tmp_path.name}\n" in done.stdout


def test_test_command_is_what_continuous_integration_runs() -> None:
    assert command_block("test command") == ['pip install -e ".[test]"', "python -m pytest -n 2"]
    assert "<!-- test command -->" in (ROOT / ".ci/run").read_text()
