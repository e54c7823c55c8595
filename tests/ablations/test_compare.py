"""The comparison of run directories: arms, intervals, pairing, and what forbids a comparison."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ablations import compare
from ablations.analysis import comparison, runs
from ablations.reporting import formats
from ablations.statistics import t_interval
from operators import InputError


def write_run(
    folder: Path,
    mixer: str,
    seed: int,
    accuracy: float,
    *,
    status: str = "ok",
    data: str = "a",
    name: str = "mini",
    more: dict[str, Any] | None = None,
    **config: Any,
) -> Path:
    folder.mkdir(parents=True)
    settings = {"mixer": {"name": mixer}, "seed": seed, "data": {"name": name, "root": str(folder)}, **config}
    (folder / "config.yaml").write_text(json.dumps(settings))
    costs = {"params": 1000, "mixer_macs": 10, "macs": 100, "train/seconds": 5.0, "backend": "sdpa"}
    run = {"task": "classification", "mixer": mixer, "data": name, "seed": seed, "status": status}
    (folder / "metrics.json").write_text(json.dumps({**run, "test/accuracy": accuracy, **costs, **(more or {})}))
    provenance = {
        "data": {"name": name, "fingerprint": data},
        "git": None,
        "versions": {"torch": "2"},
        "hardware": {"cpu": "x"},
        "effective_batch": 8,
        "precision": "32-true",
    }
    (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder


def table(found: list[runs.EndedRun], metrics: list[str], reference: str) -> str:
    header, rows = compare.text_table(comparison.compare(found, metrics, reference), metrics, reference)
    return formats.markdown(header, rows)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for seed, (a, b) in enumerate([(0.80, 0.70), (0.83, 0.71), (0.81, 0.72)]):
        write_run(tmp_path / f"a{seed}", "attention", seed, a)
        write_run(tmp_path / f"b{seed}", "identity", seed, b)
    return tmp_path


def test_t_interval_is_scipys() -> None:
    values = [0.1, 0.4, 0.35, 0.2, 0.9]
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    interval = t_interval(values)
    assert interval.low == pytest.approx(low, abs=1e-12)
    assert interval.high == pytest.approx(high, abs=1e-12)
    assert t_interval([0.3]).half == float("inf")


def test_t_interval_covers_the_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(1.0, 2.0, (4000, 4))
    covered = np.mean([t_interval(row).low <= 1.0 <= t_interval(row).high for row in draws.tolist()])
    assert 0.94 < covered < 0.96


def test_seeds_make_an_arm_and_differences_are_paired(study: Path) -> None:
    text = table(runs.find([study]), ["test/accuracy"], "mixer=identity")
    rows = [line.split(" | ") for line in text.splitlines()]
    assert rows[2][:3] == ["| mini", "mixer=attention", "3"]
    difference = t_interval([0.10, 0.12, 0.09])
    assert rows[2][4] == f"{difference.mean:.4f} ± {difference.half:.4f}"
    assert rows[3][4] == "—"


def test_data_sets_are_told_apart_and_only_paired_within(study: Path) -> None:
    write_run(study / "c", "attention", 0, 0.5, name="maxi", data="b")
    text = table(runs.find([study]), ["test/accuracy"], "mixer=identity")
    last = text.splitlines()[-1].split(" | ")
    assert last[:5] == ["| maxi", "attention", "1", "0.5000", "—"]
    assert runs.warnings(runs.find([study])) == []


def write_generation(folder: Path, mixer: str, loss: float, distance: float, n: int = 1000) -> None:
    more = {"task": "generation", "test/loss": loss, "test/fd_net": distance, "test/fd_net/floor": 1.0, "test/n": n}
    write_run(folder, mixer, 0, 0.5, more=more)


def test_the_task_says_by_what_it_is_compared(study: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert comparison.headline(runs.find([study])) == ["test/accuracy"]
    generation = tmp_path_factory.mktemp("generation")
    write_generation(generation / "a", "attention", 0.3, 500)
    write_generation(generation / "b", "identity", 0.4, 400)
    found = runs.find([generation])
    assert comparison.headline(found) == ["test/loss", "test/fd_net"]
    rows = [line.split(" | ") for line in table(found, comparison.headline(found), "mixer=identity").splitlines()]
    assert rows[0][3:7] == [
        "test/loss", "paired difference to mixer=identity", "test/fd_net", "paired difference to mixer=identity",
    ]  # fmt: skip
    assert rows[2][1:7] == ["mixer=attention", "1", "0.3000", "-0.1000", "500.0000", "100.0000"], "least loss first"
    assert rows[3][1] == "mixer=identity"
    with pytest.raises(InputError, match=r"several tasks.*classification, generation"):
        comparison.headline(runs.find([study, generation]))


def test_test_sets_of_different_sizes_are_said(study: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    for folder, size in (("a0", 10), ("b0", 10)):
        np.savez(study / folder / "predictions.npz", label=np.zeros(size))
    assert runs.warnings(runs.find([study])) == []
    np.savez(study / "a1" / "predictions.npz", label=np.zeros(7))
    assert runs.warnings(runs.find([study])) == ["numbers of test images of mini: 7, 10"]
    generation = tmp_path_factory.mktemp("generation")
    write_generation(generation / "a", "attention", 0.3, 500)
    write_generation(generation / "b", "identity", 0.4, 400, n=200)
    assert runs.warnings(runs.find([generation])) == ["numbers of test images of mini: 200, 1000"]


def test_arms_are_named_by_what_differs(tmp_path: Path) -> None:
    write_run(tmp_path / "1", "attention", 0, 0.5, shell={"conv": 0, "norm": "rms"})
    write_run(tmp_path / "2", "attention", 0, 0.6, shell={"conv": 3, "norm": "rms"})
    assert set(runs.arms(runs.find([tmp_path]))) == {"shell.conv=0", "shell.conv=3"}


def test_a_mixers_own_parameters_do_not_name_arms_of_different_mixers(tmp_path: Path) -> None:
    write_run(tmp_path / "1", "attention", 0, 0.5)
    write_run(tmp_path / "2", "pde_ssm", 0, 0.6, pde={"state": 4})
    write_run(tmp_path / "3", "pde_ssm", 1, 0.6, pde={"state": 4})
    assert set(runs.arms(runs.find([tmp_path]))) == {"mixer=attention", "mixer=pde_ssm"}


def test_what_forbids_a_comparison_is_said(study: Path) -> None:
    assert runs.warnings(runs.find([study])) == []
    write_run(study / "c", "pool", 0, 0.1, data="b")
    write_run(study / "d", "pool", 1, 0.1, status="diverged")
    said = " ".join(runs.warnings(runs.find([study])))
    assert "2 different contents (fingerprints) of mini" in said
    assert "status diverged" in said


def test_wrong_input_is_one_line(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, expected in [
        ([str(empty)], "no run"),
        ([str(empty / "nowhere")], "is not there"),
        ([str(study), "--metric", "test/acuracy"], "did you mean 'test/accuracy'"),
        ([str(study), "--reference", "mixer=identiy"], "did you mean 'mixer=identity'"),
    ]:
        assert compare.main(arguments) == 2
        said = capsys.readouterr().err
        assert expected in said
        assert said.count("\n") == 1
    (study / "a0" / "metrics.json").write_text("{")
    with pytest.raises(InputError, match="a0"):
        runs.find([study])


ALIASES = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))])


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.yaml", ALIASES, "values once its aliases are written out"),
        ("provenance.json", '{"data": {"fingerprint": ["a"]}}', "'fingerprint', or holds something else"),
        ("provenance.json", '{"versions": {"torch": [2]}}', "'torch', or holds something else"),
    ],
    ids=["bomb", "fingerprint", "version"],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, file: str, text: str, said: str) -> None:
    path = write_run(tmp_path / "run", "pool", 0, 0.5) / file
    path.write_text(text if file == "config.yaml" else json.dumps({**json.loads(path.read_text()), **json.loads(text)}))
    with pytest.raises(InputError) as caught:
        runs.read(tmp_path / "run")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_keys_of_two_kinds_are_compared_as_texts(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", "pool", 0, 0.5)
    (path / "config.yaml").write_text("seed: 0\nmodel: {1: a, b: c}\n")
    assert dict(runs.flatten(runs._settings(path, (path / "config.yaml").read_text()))) == {
        "model.1": "a",
        "model.b": "c",
        "seed": 0,
    }


def test_formats_hold_the_same_numbers(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(study / "a3", "attention", 3, 0.9, data="b")
    command = [str(study), "--reference", "mixer=identity"]
    assert compare.main([*command, "--format", "csv"]) == 0
    out, notes = capsys.readouterr()
    assert "2 different contents" in notes
    first, second = csv.DictReader(io.StringIO(out))
    score, difference = t_interval([0.80, 0.83, 0.81, 0.9]), t_interval([0.10, 0.12, 0.09])
    assert (first["arm"], first["seeds"], first["test/accuracy n"]) == ("mixer=attention", "4", "4")
    assert [float(first[f"test/accuracy{end}"]) for end in ("", " low", " high")] == pytest.approx(
        [score.mean, score.low, score.high]
    )
    less = "test/accuracy less mixer=identity"
    assert float(first[f"{less} low"]) == pytest.approx(difference.low)
    assert (first[f"{less} n"], second[less], second["macs"]) == ("3", "", "100")
    assert compare.main([*command, "--format", "latex"]) == 0
    latex = capsys.readouterr().out
    assert latex.startswith("% not the same for all: 2 different contents")
    shown = f"{score.mean:.4f} $\\pm$ {score.half:.4f} & {difference.mean:.4f} $\\pm$ {difference.half:.4f} (n = 3)"
    assert shown in latex
    assert compare.main(command) == 0
    default = capsys.readouterr().out
    assert compare.main([*command, "--format", "markdown"]) == 0
    assert capsys.readouterr().out == default
    assert default.startswith("> not the same for all: 2 different contents")
    assert compare.main([*command, "--format", "cvs"]) == 2
    assert "did you mean 'csv'" in capsys.readouterr().err


HOSTILE = 'a|b & c_d {e} 50 % #1 $x$ ~ ^ \\ <b>x</b> *y* `z` [l](javascript:x) _u_ "q",\nline'


def test_texts_are_escaped_in_every_format() -> None:
    (line,) = (line for line in formats.markdown(["x", "y"], [[HOSTILE, "pde_ssm"]]).splitlines()[2:])
    assert len(re.split(r"(?<!\\)\|", line)) == 4
    assert not re.search(r"(?<!\\)(<b|\*|`)|\](?!\\)\(|(?<![\\\w])_", line)
    assert line.endswith("| pde_ssm |")
    latex = formats.latex([HOSTILE, "y"], [[HOSTILE, "pde_ssm"]], HOSTILE)
    bare = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum|textbar|textquotedbl)\{\}", "", latex)
    bare = re.sub(r"\$[<>]\$|\\[&%$#_{}]", "", bare)
    rows = [row for row in bare.splitlines() if row.endswith(r"\\")]
    assert [row.count("&") for row in rows] == [1, 1]
    assert not re.search(r'[%$#_~^|<>"]', bare)
    (row,) = csv.DictReader(io.StringIO(formats.csv_text([{"arm": HOSTILE, "n": 3}])))
    assert row == {"arm": HOSTILE, "n": "3"}


@pytest.mark.parametrize("command", ["compare", "report"])
def test_refusals_import_neither_torch_nor_statistics(tmp_path: Path, command: str) -> None:
    program = f"""
import sys
from ablations import {command}
assert {command}.main([{str(tmp_path / "nowhere")!r}]) == 2
loaded = sorted({{name.split(".")[0] for name in sys.modules}} & {{"torch", "scipy", "lightning", "optuna", "hydra"}})
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr


@pytest.mark.parametrize("size", ["x", float("nan"), [1]])
def test_a_number_of_test_images_that_is_none_is_refused(tmp_path: Path, size: Any) -> None:
    run = write_run(tmp_path / "run", "pool", 0, 0.5, more={"test/n": size})
    with pytest.raises(InputError, match=r"test/n=.* must be a number"):
        runs.warnings(runs.find([run]))


@pytest.fixture
def data_sets(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for place, name in enumerate(("mini", "cifar10", "imagenet")):
        for seed in range(3):
            for mixer, gain in (("attention", 0.05 + 0.01 * place), ("identity", 0.0)):
                score = 0.8 - 0.2 * place + gain + 0.01 * draw.normal()
                write_run(tmp_path / f"{name}-{mixer}-{seed}", mixer, seed, score, name=name, data=name)
    return tmp_path


def test_arms_are_put_together_over_data_sets(data_sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [str(data_sets), "--aggregate", "--reference", "mixer=identity"]
    assert compare.main(given) == 0
    text = capsys.readouterr().out
    assert "test/accuracy over cifar10, imagenet, mini" in text
    assert "sets like these (points)" in text
    assert compare.main([*given, "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    scores = {(run.metrics["mixer"], run.metrics["data"], run.settings["seed"]): run.metrics["test/accuracy"]
              for run in runs.find([data_sets])}  # fmt: skip
    means = [np.mean([scores["attention", data, seed] - scores["identity", data, seed] for seed in range(3)])
             for data in ("mini", "cifar10", "imagenet")]  # fmt: skip
    (row,) = [row for row in rows if row["arm"] == "mixer=attention"]
    assert float(row["gain"]) == pytest.approx(np.mean(means))
    assert float(row["high"]) == pytest.approx(t_interval(means).high)
    assert compare.main([*given, "--format", "latex"]) == 0
    assert capsys.readouterr().out.startswith("% ")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--aggregate"], "--aggregate needs --reference"),
        (["--aggregate", "--reference", "mixer=identify"], "did you mean 'mixer=identity'"),
    ],
)
def test_an_aggregate_without_its_reference_is_refused(
    data_sets: Path, capsys: pytest.CaptureFixture[str], given: list[str], expected: str
) -> None:
    assert compare.main([str(data_sets), *given]) == 2
    assert expected in capsys.readouterr().err


def test_one_data_set_is_nothing_to_put_together(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([str(study), "--aggregate", "--reference", "mixer=identity"]) == 2
    assert "takes several data sets" in capsys.readouterr().err
