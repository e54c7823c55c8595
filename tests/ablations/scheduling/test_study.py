from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Callback

import ablations
from ablations import __main__ as cli
from ablations.scheduling.engines.local import local_environment
from ablations.scheduling.trial import attempt
from tasks.system.signals import Stop
from tests.ablations.conftest import TINY, Bench, Runs

ROOT = Path(ablations.__file__).parent.parent
TIMES = {
    "train/seconds", "train/images_per_second", "train/memory_mb", "train/step_ms", "inference/image_ms", "seconds",
}  # fmt: skip


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write(node: dict[str, Any], path: str = "my.yaml") -> str:
    Path(path).write_text(yaml.safe_dump(node, sort_keys=False))
    return f"study={path}"


def test_help_names_studies_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for word in ("pde_terms", "mixers", "tune", "study.workers=N", "postgresql://", "Exit status"):
        assert word in out


def test_study_leaves_plan_and_table(
    here: Path, crew: Runs, node: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    del node["name"]
    directory = here / "outputs" / "studies" / "my"
    registered: list[Any] = []

    def look() -> None:
        registered.append(yaml.safe_load((directory / "study.yaml").read_text()))

    crew.acts["00000"] = look
    assert cli.main([write(node), "study.seeds=3"]) == 0
    table = rows(directory)
    assert [row["number"] for row in table] == [str(number) for number in range(15)]
    assert {row["state"] for row in table} == {"complete"}
    assert table[3]["factor/size"] == "5"
    assert table[4]["factor/size"] == ""
    assert table[3]["test/accuracy"]
    assert (table[3]["tuned"], table[3]["learning_rate"], table[3]["run_dir"]) == ("false", "0.002", "trials/00003")
    plan = yaml.safe_load((directory / "study.yaml").read_text())
    assert plan["seeds"] == 3
    assert plan["blocks"][0]["factors"]["size"] == {"key": "mixer.size", "levels": [3, 5], "labels": ["3", "5"]}
    assert len(plan["blocks"][0]["cells"]) == 4
    assert registered == [plan]  # as it was when the first trial ran
    assert plan["registration"]["ended"] == 0
    assert plan["registration"]["at"] < min(row["begun"] for row in table)
    assert (directory / "environment.lock").is_file()
    assert "report.html" in capsys.readouterr().err
    # Again, with fewer seeds: nothing left to do, nothing forgotten.
    begun = list(crew.begun)
    assert cli.main(["study=my.yaml"]) == 0
    assert (crew.begun, len(rows(directory))) == (begun, 15)
    assert yaml.safe_load((directory / "study.yaml").read_text()) == plan


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("2", "2", "2")),
        ({"OMP_NUM_THREADS": "1"}, ("1", "1", "1")),
        ({"OMP_NUM_THREADS": "3,2"}, ("3,2", "3", "3")),
        ({"MKL_NUM_THREADS": "1"}, ("2", "1", "2")),
    ],
)
def test_all_libraries_of_a_worker_have_the_same_threads(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: tuple[str, ...]
) -> None:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    found = local_environment(place=0, workers=4)
    assert tuple(found[name] for name in names) == expected


def test_failure_decides_the_exit_status(
    here: Path, crew: Runs, node: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError("no luck")

    crew.acts["00001"] = fail
    assert cli.main([write(node)]) == 1
    assert "failed: window, size=3 conv=3, seed 0: RuntimeError: no luck" in capsys.readouterr().err
    table = rows(here / "outputs" / "studies" / "small")
    assert (table[1]["state"], table[1]["reason"]) == ("failed", "RuntimeError: no luck")
    crew.acts["00001"] = lambda: "diverged"
    assert cli.main(["study=my.yaml"]) == 0
    assert rows(here / "outputs" / "studies" / "small")[1]["state"] == "diverged"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["study=pde_term"], "did you mean 'pde_terms'"),
        (["mixer=pool"], "no study=NAME"),
        (["study=my.yaml", "study.seed=3"], "did you mean 'seeds'"),
        (["study=my.yaml", "study.seeds=0"], "study.seeds=0"),
        (["study=my.yaml", "study.workers=many"], "study.workers='many'"),
        (["study=my.yaml", "--multirun"], "is no override"),
        (["study=my.yaml", "mixer.size=3"], "it is factor size"),
        (["study=my.yaml", "model.depht=3"], "did you mean 'depth'"),
        (["study=my.yaml", "study.storage=nonsense"], "is no storage"),
        (["study=my.yaml", "study.storage=sqlite:///nowhere/study.db"], "does not answer"),
        (["study=my.yaml", "study.storage=postgresql://me:secret@127.0.0.1:9/db"], "does not answer"),
    ],
)
def test_wrong_input_exits_2_with_one_line(
    here: Path, crew: Runs, node: dict[str, Any], capsys: pytest.CaptureFixture[str], given: list[str], expected: str
) -> None:
    write(node)
    assert cli.main(given) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert expected in err
    assert "secret" not in err
    assert not crew.begun


def test_study_with_another_design_is_left_as_it_is(
    here: Path, crew: Runs, node: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([write(node)]) == 0
    directory = here / "outputs" / "studies" / "small"
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert cli.main(["study=my.yaml", "model.dim=24"]) == 2
    assert "another design (other overrides)" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_interrupted_trial_goes_on_from_its_checkpoint_and_ends_the_same(
    bench: Bench, node: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = ["trainer.max_steps=null", "trainer.max_epochs=3", "+trainer.limit_train_batches=2"]
    block = node["blocks"][0]
    node |= {"seeds": 1, "overrides": [*TINY, *longer]}
    block["factors"] = {"size": block["factors"]["size"]}
    block["also"] = []
    ends = {}
    stop, begun = Stop(), []

    class Later(Callback):
        """Stops the first trial in its second epoch."""

        def on_train_start(self, trainer: Any, *_: Any) -> None:
            begun.append(trainer.global_step)

        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 2 and begun == [0]:
                stop.ask()

    execute = attempt.execute

    def watched(config: Any, folder: Path, *, callbacks: list[Callback], **options: Any) -> dict[str, Any]:
        return execute(config, folder, callbacks=[*callbacks, Later()], **options)

    monkeypatch.setattr(attempt, "execute", watched)
    ledger = bench.work(node, stop)
    assert [entry.state for entry in ledger.entries()] == ["waiting"] * 2
    assert (bench.directory / "trials" / "00000" / "checkpoints" / "last.ckpt").exists()
    ends["interrupted"] = bench.work(node)
    assert begun == [0, 3, 0]
    undisturbed = Bench(bench.directory.with_name("undisturbed"))
    ends["undisturbed"] = undisturbed.work(node)
    bench.opened += undisturbed.opened
    one, other = (
        [{key: v for key, v in (e.result or {})["metrics"].items() if key not in TIMES} for e in ledger.entries()]
        for ledger in ends.values()
    )
    assert one == other
    assert one[0]["status"] == "ok"


@pytest.mark.slow
def test_killed_worker_and_stopped_study_end_as_an_undisturbed_one(here: Path, node: dict[str, Any]) -> None:
    node["overrides"] = [*TINY, "trainer.max_steps=40", "trainer.max_epochs=3"]
    write(node)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def begin(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "ablations", "study=my.yaml", f"study.dir={name}", "study.workers=4"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait_for(found: Any) -> Any:
        limit = time.monotonic() + 300
        while time.monotonic() < limit:
            result = found()
            if result:
                return result
            time.sleep(0.1)
        raise AssertionError("it did not happen")

    def in_trial() -> list[int]:
        """Workers that are carrying out a trial: those who hold its lock."""
        locks = Path("disturbed/study.db.locks").resolve()
        holders = []
        for process in Path("/proc").glob("[0-9]*/fd/*"):
            try:
                held = process.readlink()
            except OSError:
                continue
            if held.parent == locks:
                holders.append(int(process.parts[2]))
        return holders

    study = begin("disturbed")
    os.kill(wait_for(in_trial)[0], signal.SIGKILL)
    wait_for(lambda: sum(row["state"] == "complete" for row in rows(Path("disturbed"))) >= 2)
    study.send_signal(signal.SIGINT)
    assert study.wait(200) == 1
    assert not in_trial()
    left = [row["state"] for row in rows(Path("disturbed"))]
    assert 2 <= left.count("complete") < 10
    assert set(left) == {"complete", "waiting"}
    assert begin("disturbed").wait(500) == 0
    assert begin("undisturbed").wait(500) == 0
    one, other = (
        [json.loads((path / "metrics.json").read_text()) for path in sorted(Path(name, "trials").iterdir())]
        for name in ("disturbed", "undisturbed")
    )
    assert len(one) == 10
    assert [{k: v for k, v in run.items() if k not in TIMES} for run in one] == [
        {k: v for k, v in run.items() if k not in TIMES} for run in other
    ]
    table = rows(Path("disturbed"))
    assert {row["state"] for row in table} == {"complete"}
    assert max(int(row["attempts"]) for row in table) >= 2
