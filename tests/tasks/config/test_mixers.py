"""A mixer is one file: its card fills the configuration, and one of another package is found everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import conf
import operators
from tasks.config.composition import compose
from tests import processes
from tests.documents import blocks
from tests.mixers import every_mixer

ROOT = Path(conf.__file__).parents[1]
WRITTEN = {path.stem for path in (ROOT / "conf/mixer").glob("*.yaml")}
GUIDE = ROOT / "docs/guide/mixer.md"
RUNS_AND_STUDIES = """
import contextlib, io, json
from pathlib import Path
import run
from ablations import plan, studyfile
from operators import __main__ as zoo

tiny = "model.dim=16 model.depth=1 data.batch_size=32 trainer=smoke trainer.accelerator=cpu logger=none".split()
statuses = [run.main([*tiny, "mixer=row_mean", "mixer.start=2", "hydra.run.dir=own"])]
both = ["mixer=hybrid", "mixer.pattern=[row_mean,pool]", "model.depth=2", "hydra.run.dir=hybrid"]
statuses += [run.main([*tiny, *both])]
statuses += [run.main(["mixer=row_mean", word]) for word in ("mixer.strat=2", "mixer.start=big", "mixer.backend=x")]
listing = io.StringIO()
with contextlib.redirect_stdout(listing):
    statuses += [zoo.main([]), zoo.main(["describe", "row_mean"])]
print(json.dumps({
    "statuses": statuses,
    "mixer": json.loads(Path("own/metrics.json").read_text())["mixer"],
    "listed": listing.getvalue().count("Mean of each row"),
    "levels": plan.read(studyfile.load("mixers")).blocks[0].factors[0].levels,
}))
"""
CONTRACT_BENCHMARK_AND_PAGE = """
import contextlib, io, json
from pathlib import Path
from operators import __main__ as zoo
from operators.benchmark import __main__ as benchmark
from operators.pages import __main__ as pages

contract = io.StringIO()
with contextlib.redirect_stdout(contract):
    statuses = [zoo.main(["test", "row_mean"])]
words = "--mixers row_mean,pool --grids 4 --batch 1 --dim 8 --repeats 1 --rivals none --reference pool --out bench"
statuses += [benchmark.main(words.split())]
statuses += [pages.main(["row_mean", "--out", "pages"])]
print(json.dumps({
    "statuses": statuses,
    "kept": "row_mean keeps all its promises" in contract.getvalue(),
    "measured": "row_mean" in next(Path("bench").glob("*.md")).read_text(),
    "page": Path("pages/row_mean.md").read_text(),
    "pictures": sorted(path.name for path in Path("pages").glob("row_mean-*.png")),
}))
"""


@pytest.mark.parametrize("name", every_mixer())
def test_a_card_is_the_configuration(name: str) -> None:
    settings = compose([f"mixer={name}"])["mixer"]
    if name in WRITTEN:
        assert settings["name"] == name
        return
    defaults = operators.describe(name).defaults
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    assert settings == {"name": name, "backend": "auto", **plain}


def test_only_two_mixers_have_files() -> None:
    assert {"pde_ssm", "hybrid", "stages"} == WRITTEN


def test_a_folder_of_ones_own_comes_before_the_card(tmp_path: Path) -> None:
    (tmp_path / "mixer").mkdir()
    (tmp_path / "mixer/pool.yaml").write_text("name: pool\nbackend: auto\nsize: 7\n")
    command = [sys.executable, str(ROOT / "run.py"), f"--config-dir={tmp_path}", "mixer=pool", "--cfg=job"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert "size: 7" in shown


@pytest.fixture
def guide_mixer() -> str:
    """The mixer that the guide shows."""
    (code,) = (block.text for block in blocks(GUIDE, "python") if "@register" in block.text)
    return code


def test_a_minimal_mixer_is_one_file_of_at_most_forty_lines(guide_mixer: str) -> None:
    assert len(guide_mixer.splitlines()) <= 40
    assert [block.text for block in blocks(ROOT / "README.md", "python") if "@register" in block.text] == [guide_mixer]


@pytest.fixture
def installed(tmp_path: Path, guide_mixer: str) -> dict[str, str]:
    """The environment of a process that finds the guide's package, installed by pip; nothing here knows of it."""
    package, site = tmp_path / "package", tmp_path / "site"
    package.mkdir()
    (package / "row_mean.py").write_text(guide_mixer)
    (project,) = (block.text for block in blocks(GUIDE, "toml"))
    (package / "pyproject.toml").write_text(project)
    install = [
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        site,
        package,
    ]
    subprocess.run([sys.executable, "-m", *install], check=True)
    return {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "COLUMNS": "120"}


def facts_of(script: str, folder: Path, environment: dict[str, str]) -> Any:
    done = processes.run(script, folder, environment=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_mixer_of_another_package_is_found_by_runs_and_studies(tmp_path: Path, installed: dict[str, str]) -> None:
    facts = facts_of(RUNS_AND_STUDIES, tmp_path, installed)
    assert facts["statuses"] == [0, 0, 2, 2, 2, 0, 0]
    assert facts["mixer"] == "row_mean"
    assert facts["listed"] == 2
    assert "row_mean" in facts["levels"]


@pytest.mark.slow
def test_a_mixer_of_another_package_has_contract_benchmark_and_page(tmp_path: Path, installed: dict[str, str]) -> None:
    facts = facts_of(CONTRACT_BENCHMARK_AND_PAGE, tmp_path, installed)
    assert facts["statuses"] == [0, 0, 0]
    assert facts["kept"]
    assert facts["measured"]
    assert "`row_mean.py`" in facts["page"]
    kinds = ("impulse", "receptive-field", "spectrum", "time")
    assert facts["pictures"] == [f"row_mean-{kind}-{theme}.png" for kind in kinds for theme in ("dark", "light")]
    assert all(f"]({picture}#only-" in facts["page"] for picture in facts["pictures"])
