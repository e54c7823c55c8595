"""Comparison and report of damaged runs and studies say so in one line, or go on without what is damaged."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from ablations import compare, report
from ablations.analysis import runs
from tests.ablations import fake_study
from tests.ablations.hostile.conftest import places, replaced
from tests.ablations.test_compare import write_run


@pytest.mark.parametrize(
    "damage",
    [b"\xff\xfe\0\x80", b"", b"[1]", b"{", b"null", b'"text"', b"{}", b"[" * 2000, b"a: [", b'{"status": 5}'],
)
@pytest.mark.parametrize("name", ["config.yaml", "metrics.json", "provenance.json"])
def test_comparison_of_damaged_runs_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: bytes
) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"a{seed}", "attention", seed, 0.5)
    (tmp_path / "a1" / name).write_bytes(damage)
    assert compare.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"a1/{name}" in said


def test_comparison_says_which_folder_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "a", "attention", 0, 0.5)
    shutil.copytree(tmp_path / "a", tmp_path / "b.aside-1")
    assert len(runs.find([tmp_path])) == 1
    assert compare.main([str(tmp_path / "nowhere")]) == 2
    scan = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert compare.main([str(tmp_path)]) == 2
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize("values", [1, pytest.param(7, marks=pytest.mark.slow)])
def test_report_of_a_damaged_study_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], values: int) -> None:
    good = fake_study.pde_terms(tmp_path / "good", seeds=2, blocks=["initial"], logs=False)
    plan, table = yaml.safe_load((good / "study.yaml").read_text()), (good / "trials.csv").read_text()
    texts: list[tuple[str, bytes]] = [(name, b"\xff\0\x80") for name in ("study.yaml", "trials.csv")]
    texts += [("study.yaml", content) for content in (b"", b"5", b"[a]", b"[" * 20_000, b"a: [")]
    texts += [("trials.csv", content) for content in (b"", b"number,block\n1,2\n", table[:900].encode())]
    texts += [
        ("trials.csv", table.replace("complete", "compleet", 1).encode()),
        ("trials.csv", f"{table}1,2\n".encode()),
    ]
    wrong: list[Any] = [None, 5, "x", [], [None], {}, {"x": 1}]
    for number, path in enumerate(list(places(plan))[:: 1 if values > 1 else 3]):
        for step in range(values):
            value = wrong[(3 * number + step) % len(wrong)]
            texts.append(("study.yaml", yaml.safe_dump(replaced(plan, path, value)).encode()))
    refused = 0
    for place, (name, content) in enumerate(texts):
        study = tmp_path / "damaged"
        study.mkdir()
        (study / "study.yaml").write_bytes((good / "study.yaml").read_bytes())
        (study / "trials.csv").write_bytes((good / "trials.csv").read_bytes())
        (study / name).write_bytes(content)
        status = report.main([str(study)])
        said = capsys.readouterr().err
        assert (status, said.count("\n")) in ((0, 0), (2, 1)), (place, said)
        refused += status == 2
        shutil.rmtree(study)
    assert refused > 15


def test_report_goes_on_without_the_damaged_files_of_its_runs(tmp_path: Path) -> None:
    path = fake_study.pde_terms(tmp_path / "s", seeds=2, blocks=["initial"], logs=False)
    damages = [b"", b"\xff\0\x80" * 50, b"PK\x03\x04damaged"]
    for number, damage in enumerate(damages):
        folder = path / "trials" / f"{2 * number:05d}"
        for name in ("predictions.npz", "provenance.json", "metrics.csv"):
            (folder / name).write_bytes(damage)
        (folder / "samples").mkdir()
        (folder / "samples" / "sheet.png").write_bytes(damage)
    (path / "trials" / "00009" / "provenance.json").write_text(json.dumps({"hardware": [1], "data": "x", "git": 5}))
    report.build(path)
    notes = " ".join(json.loads((path / "summary.json").read_text())["notes"])
    assert "3 of 18 complete trials have no provenance.json to be read" in notes
    assert "predictions.npz cannot be read" in notes


def test_figures_of_hostile_names_stay_in_their_folder(tmp_path: Path) -> None:
    blocks = ["../../../evil", "..-..-..-evil", "x" * 100]
    path = fake_study.pde_terms(tmp_path / "a" / "b" / "s", seeds=2, blocks=blocks, logs=False)
    report.build(path)
    assert not list(tmp_path.glob("*.svg"))
    drawn = [figure.name for figure in (path / "figures").iterdir()]
    assert len([name for name in drawn if "evil" in name]) == 2 * len([name for name in drawn if "xxx" in name])
    assert max(map(len, drawn)) < 150
