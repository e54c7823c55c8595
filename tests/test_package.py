"""What is shipped: a wheel that runs from anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_wheel_carries_configuration_and_data_and_runs(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for path in [
        *ROOT.glob("conf/**/*.yaml"),
        *ROOT.glob("tasks/data/*.npz"),
        *ROOT.glob("tasks/data/*.txt"),
        *ROOT.glob("ablations/reporting/templates/*"),
        ROOT / "operators/py.typed",
    ]:
        assert str(path.relative_to(ROOT)) in names
    assert not [name for name in names if name.startswith("tests")]

    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel]
    subprocess.run(install, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "run", "trainer=smoke", "mixer=pool", f"hydra.run.dir={tmp_path / 'out'}"],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(target)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out/metrics.json").read_text())["status"] == "ok"
