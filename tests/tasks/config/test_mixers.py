"""A mixer is one file: its card fills the configuration, and one of another package is found everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import conf
import operators
from tasks.config.composition import compose

ROOT = Path(conf.__file__).parents[1]
WRITTEN = {path.stem for path in (ROOT / "conf/mixer").glob("*.yaml")}
STRANGER = """
import torch
from torch import nn
from operators import Core, Cost, MixerCard, register


@register(
    MixerCard(
        name="stranger", title="Mean of each row", source="an example", year=2026, equation="y_ij = w mean_j u_ij",
        position_aware=True, permutation_equivariant=False, translation_equivariant="circular", linear=True,
        backends=("torch",),
    )
)
class Stranger(Core):
    def __init__(self, site, *, backend: str = "auto", start: float = 1.0):
        super().__init__(site, backend=backend)
        self.weight = nn.Parameter(torch.full((site.width,), start))

    def forward(self, u, *, x, cond=None):
        return self.weight * u.mean(2, keepdim=True).expand_as(u)

    def core_cost(self, height, width):
        return Cost(state_elements=height * self.site.width)
"""
EVERYWHERE = """
import contextlib, io, json
from pathlib import Path
import run
from ablations import plan, studyfile
from operators import __main__ as zoo
from operators.benchmark import __main__ as benchmark

tiny = "model.dim=16 model.depth=1 data.batch_size=32 trainer=smoke trainer.accelerator=cpu logger=none".split()
statuses = [run.main([*tiny, "mixer=stranger", "mixer.start=2", "hydra.run.dir=own"])]
both = ["mixer=hybrid", "mixer.pattern=[stranger,pool]", "model.depth=2", "hydra.run.dir=hybrid"]
statuses += [run.main([*tiny, *both])]
statuses += [run.main(["mixer=stranger", word]) for word in ("mixer.strat=2", "mixer.start=big", "mixer.backend=x")]
listing = io.StringIO()
with contextlib.redirect_stdout(listing):
    statuses += [zoo.main([]), zoo.main(["describe", "stranger"]), zoo.main(["test", "stranger"])]
words = "--mixers stranger,pool --grids 4 --batch 1 --dim 8 --repeats 1 --rivals none --reference pool --out bench"
statuses += [benchmark.main(words.split())]
print(json.dumps({
    "statuses": statuses,
    "mixer": json.loads(Path("own/metrics.json").read_text())["mixer"],
    "listed": listing.getvalue().count("Mean of each row"),
    "kept": "stranger keeps all its promises" in listing.getvalue(),
    "measured": "stranger" in next(Path("bench").glob("*.md")).read_text(),
    "levels": plan.read(studyfile.load("mixers")).blocks[0].factors[0].levels,
}))
"""


@pytest.mark.parametrize("name", operators.names())
def test_a_card_is_the_configuration(name: str) -> None:
    settings = compose([f"mixer={name}"])["mixer"]
    if name in WRITTEN:
        assert settings["name"] == name
        return
    defaults = operators.describe(name).defaults
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    assert settings == {"name": name, "backend": "auto", **plain}


def test_only_two_mixers_have_files() -> None:
    assert {"pde_ssm", "hybrid"} == WRITTEN


def test_a_folder_of_ones_own_comes_before_the_card(tmp_path: Path) -> None:
    (tmp_path / "mixer").mkdir()
    (tmp_path / "mixer/pool.yaml").write_text("name: pool\nbackend: auto\nsize: 7\n")
    command = [sys.executable, str(ROOT / "run.py"), f"--config-dir={tmp_path}", "mixer=pool", "--cfg=job"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert "size: 7" in shown


def test_a_mixer_of_another_package_is_found_everywhere(tmp_path: Path) -> None:
    """No file of this project knows of it."""
    site = tmp_path / "site"
    (site / "stranger-1.0.dist-info").mkdir(parents=True)
    (site / "stranger_mixer.py").write_text(STRANGER)
    (site / "stranger-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    points = "[operator_zoo.mixers]\nstranger = stranger_mixer\n"
    (site / "stranger-1.0.dist-info/entry_points.txt").write_text(points)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-c", EVERYWHERE], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["statuses"] == [0, 0, 2, 2, 2, 0, 0, 0, 0], done.stderr
    assert facts["mixer"] == "stranger"
    assert facts["listed"] == 2
    assert facts["kept"]
    assert facts["measured"]
    assert "stranger" in facts["levels"]
