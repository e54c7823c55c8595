"""What the site says runs, runs; the site builds offline, without warnings, and its links hold."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

import ablations.__main__ as studies
import operators
import operators.__main__ as listing
import operators.benchmark.__main__ as benchmark
from ablations import plan
from tasks.composition import compose
from tests.documents import PAGES, ROOT, blocks, commands

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
COMMANDS = dict(command for page in PAGES for command in commands(page))

needs_site = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")),
    reason="pip install 'operator-zoo[docs]': the site's builder is not installed",
)
needs_kernel = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("nbclient", "ipykernel")),
    reason="pip install 'operator-zoo[test]': nbclient and ipykernel are not installed",
)


def test_python_blocks() -> None:
    """All blocks in one process of their own, each in a namespace of its own: some register mixers."""
    snippets = [(str(block), block.text) for page in PAGES for block in blocks(page, "python")]
    assert len(snippets) >= 10
    program = (
        "import json, sys\n"
        "for place, text in json.load(sys.stdin):\n"
        "    print(place, flush=True)\n"
        "    exec(compile(text, place, 'exec'), {'__name__': 'block'})\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, input=json.dumps(snippets), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-500:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("place", COMMANDS)
def test_commands(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command is understood: run.py's overrides compose, the other programs' arguments parse."""
    program, *arguments = COMMANDS[place]
    if program == "-m":
        program, *arguments = arguments
    monkeypatch.chdir(tmp_path)
    if program == "run.py":
        _check_run(arguments)
    elif program == "ablations":
        _check_study(arguments)
    elif program == "operators":
        _check_listing(arguments)
    elif program == "operators.benchmark":
        benchmark._parser().parse_args(arguments)
    else:
        assert importlib.util.find_spec(program) is not None, f"there is no module {program}"


def _check_run(arguments: Sequence[str]) -> None:
    overrides = [text for text in arguments if not text.startswith("--") and text != "job"]
    if any(word.startswith("ckpt=") for word in overrides):
        # The checkpoint is a placeholder; what else is said must compose for the task that it names.
        overrides = [word for word in overrides if not word.startswith(("ckpt=", "mode="))]
        overrides += ["task=generation"] if any(word.startswith("sample.") for word in overrides) else []
        overrides = [word for word in overrides if not word.startswith("data.resolution=[")]
    if "--multirun" in arguments:
        overrides = [f"{key}={value.split(',')[0]}" for key, _, value in (word.partition("=") for word in overrides)]
    compose(overrides)


def _check_study(arguments: Sequence[str]) -> None:
    (study,) = (word.removeprefix("study=") for word in arguments if word.startswith("study="))
    if study != "NAME" and not study.endswith(".yaml"):
        plan.read(studies.read(arguments).node)


def _check_listing(arguments: Sequence[str]) -> None:
    assert not arguments or listing.main(arguments) == 0


@pytest.mark.parametrize(
    "block", [block for page in PAGES for block in blocks(page, "yaml") if block.text.startswith("question:")], ids=str
)
def test_studies_in_pages(block: object) -> None:
    plan.read(yaml.safe_load(block.text) | {"name": "example"})  # type: ignore[attr-defined]


@needs_site
def test_site(tmp_path: Path) -> None:
    """A strict build without network access, a page with pictures for every mixer, and no link that leads nowhere."""
    site = tmp_path / "site"
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert build.returncode == 0, build.stderr[-3000:]
    for name in operators.names():
        page = (site / "mixers" / f"{name}.html").read_text(encoding="utf-8")
        card = operators.describe(name)
        assert card.title in page
        for picture in ("impulse", "receptive-field"):
            for theme in ("light", "dark"):
                file = site / "mixers" / f"{name}-{picture}-{theme}.png"
                assert file.read_bytes().startswith(b"\x89PNG")
                assert f"{file.name}#only-{theme}" in page
        assert f"{name}-spectrum-light.png" in page or "has no spectrum" in page
    links = subprocess.run(
        [sys.executable, str(ROOT / "docs/_site/links.py"), str(site)], capture_output=True, text=True, check=False
    )
    assert links.returncode == 0, links.stdout[-3000:]


@pytest.mark.parametrize(
    ("html", "message"),
    [
        ('<a href="other.html">x</a>', "leads to no file"),
        ('<a href="#missing">x</a>', "leads to no anchor"),
        ('<a href="https://nowhere">x</a>', "has no valid host"),
        ('<a href="javascript:void(0)">x</a>', "unknown scheme"),
        ('<script src="https://cdn.example.org/x.js"></script>', "from elsewhere"),
        ('<link rel="stylesheet" href="//fonts.example.org/x.css">', "from elsewhere"),
        ('<img src="missing.png">', "leads to no file"),
        ('<a href="../outside.html">x</a>', "leads to no file"),
    ],
)
def test_faulty_links_are_found(html: str, message: str, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text(
        f'<h1 id="here"><a href="#here">x</a></h1><a href="https://arxiv.org/">y</a>{html}'
    )
    (tmp_path / "outside.html").write_text("")
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs/_site/links.py"), str(site)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert message in done.stdout
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_no_outputs(path: Path) -> None:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@needs_kernel
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path) -> None:
    """Every cell, in a kernel of its own process; asserts in the cells say what must hold."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
