"""Wherever workers run and whatever becomes of them: the planned trials, each once, with the same metrics."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import yaml
from rich.console import Console

from ablations import __main__ as cli
from ablations.scheduling import crew, engines
from ablations.scheduling.engines import settings
from ablations.scheduling.engines.process import Ending, Instructions
from ablations.scheduling.request import Request
from operators import InputError
from tests.ablations.conftest import NODE, TINY, Bench
from tests.ablations.scheduling.test_study import ROOT, TIMES, rows

T = TypeVar("T")
LONGER = {**NODE, "seeds": 1, "overrides": [*TINY, "trainer.max_steps=60", "trainer.max_epochs=3"]}


def wait_for(ask: Callable[[], T]) -> T:
    limit = time.monotonic() + 600
    while time.monotonic() < limit:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.2)
    raise AssertionError("it did not happen")


def begin(folder: Path, name: str, *options: str) -> subprocess.Popen[bytes]:
    (folder / "my.yaml").write_text(yaml.safe_dump(LONGER, sort_keys=False))
    command = [sys.executable, "-m", "ablations", "study=my.yaml", f"study.dir={name}", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with (folder / f"{name}.out").open("a") as out:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out)


def in_trial(locks: Path) -> list[int]:
    """Processes that carry out a trial: those who hold its lock."""
    holders = []
    for file in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if file.readlink().parent == locks.resolve():
                holders.append(int(file.parts[2]))
        except OSError:
            continue
    return holders


def parent(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has just ended
        return 0


def metrics(directory: Path) -> list[dict[str, Any]]:
    table = rows(directory)
    assert [row["number"] for row in table] == [str(number) for number in range(5)]
    assert {row["state"] for row in table} == {"complete"}
    runs = [json.loads((path / "metrics.json").read_text()) for path in sorted((directory / "trials").iterdir())]
    return [{key: value for key, value in run.items() if key not in TIMES} for run in runs]


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages of all engines are taken to be there: their options are read without them."""
    monkeypatch.setattr(settings, "find_spec", lambda name: name)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"engine": "sulrm"}, "did you mean 'slurm'"),
        ({"workers": "0"}, "study.workers=0"),
        ({"cpus": "2"}, "study.cpus is of study.engine=ray and slurm, not of local"),
        ({"engine": "ray", "slurm": "{time: 5}"}, "study.slurm is of study.engine=slurm, not of ray"),
        ({"engine": "ray", "cpus": "0.5"}, "study.cpus='0.5'"),
        ({"engine": "ray", "gpus": "nan"}, "study.gpus=nan"),
        ({"engine": "ray", "gpus": "many"}, "study.gpus='many'"),
        ({"engine": "slurm"}, "needs time: MINUTES"),
        ({"engine": "slurm", "slurm": "{time: 4:00:00}"}, "needs time: MINUTES"),
        ({"engine": "slurm", "slurm": "{time: 0}"}, "needs time: MINUTES"),
        ({"engine": "slurm", "slurm": "[time"}, "must be options of sbatch"),
        ({"engine": "slurm", "slurm": "{time: {a: 5}}"}, "must be options of sbatch"),
        ({"engine": "slurm", "slurm": "{time: 5, cluster: mine}"}, "can only be local"),
        ({"engine": "slurm", "slurm": "{time: 5}", "gpus": "0.5"}, "study.gpus=0.5"),
    ],
)
def test_wrong_options_of_an_engine_are_refused(given: dict[str, str], expected: str, packages: None) -> None:
    with pytest.raises(InputError) as caught:
        settings.read(given)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_of_an_engine_are_read(packages: None) -> None:
    assert settings.read({}) == settings.EngineSettings()
    ray = settings.read({"engine": "ray", "address": "auto", "gpus": "0.5", "cpus": "2", "workers": "40"})
    assert (ray.address, ray.gpus, ray.cpus, ray.workers, ray.elsewhere) == ("auto", 0.5, 2, 40, True)
    slurm = settings.read({"engine": "slurm", "slurm": "{time: 240, mem: 16G}", "gpus": "1"})
    assert (slurm.slurm, slurm.gpus, slurm.elsewhere) == ({"time": "240", "mem": "16G"}, 1, True)
    assert not settings.read({"engine": "slurm", "slurm": "{time: 240, cluster: local}"}).elsewhere


@pytest.mark.parametrize("engine", ["ray", "slurm"])
def test_engine_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=rf"pip install 'operator-zoo\[{engine}\]'"):
        settings.read({"engine": engine})


def test_workers_on_other_machines_need_another_storage_than_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], packages: None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(yaml.safe_dump(NODE))
    assert cli.main(["study=my.yaml", "study.engine=ray", "study.address=auto"]) == 2
    assert "cannot share an SQLite file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]


def test_workers_that_die_as_they_begin_are_not_begun_for_ever(
    bench: Bench, node: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    class Deadly:
        def start(self, places: Sequence[int]) -> None:
            begun.extend(places)

        def ending(self, place: int) -> Ending:
            return Ending(-9)

        def stop(self) -> None:
            begun.append(-1)

    monkeypatch.setattr(engines, "create", lambda *_: Deadly())
    monkeypatch.setattr(crew, "LOOK", 0.0)
    plan, ledger = bench.join(node)
    request = Request(node, (), bench.directory, bench.url, settings.EngineSettings(workers=2))
    (trouble,) = crew.Crew(request, plan, ledger, Console(file=StringIO())).carry_out()
    assert "a worker died 6 times in a row" in trouble
    assert begun == [0, 1] * 6 + [-1]


def test_a_long_look_is_followed_by_a_long_pause(
    bench: Bench, node: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, looks = [0.0], []

    class Endless:
        def start(self, places: Sequence[int]) -> None: ...

        def ending(self, place: int) -> Ending | None:
            return None if now[0] < 600 else Ending(1, "error: over")

        def stop(self) -> None: ...

    def look() -> list[Any]:
        looks.append(now[0])
        now[0] += 2.0
        return real()

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(engines, "create", lambda *_: Endless())
    monkeypatch.setattr(crew, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    plan, ledger = bench.join(node)
    real = ledger.entries
    monkeypatch.setattr(ledger, "entries", look)
    request = Request(node, (), bench.directory, bench.url, settings.EngineSettings())
    assert crew.Crew(request, plan, ledger, Console(file=StringIO())).carry_out() == ["error: over"]
    assert 2.0 * len(looks) < 0.05 * now[0]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SLURM's commands, which keep what is submitted and answer with what `answer` holds."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, script in (("srun", "exit 0"), ("sbatch", f'cat "$1" > {tmp_path}/submitted; . {tmp_path}/answer')):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    (tmp_path / "answer").write_text("echo Submitted batch job 12")
    return tmp_path


def test_slurm_gets_an_array_of_jobs_with_the_options_of_the_study(slurm: Path) -> None:
    from ablations.scheduling.engines.on_slurm import SlurmEngine

    options = {"engine": "slurm", "cpus": "4", "gpus": "1", "slurm": "{time: 240, mem: 16G, partition: gpu}"}
    engine = SlurmEngine(settings.read(options), Instructions({"storage": "secret"}, "crew", slurm / "logs"))
    engine.start(range(3))
    submitted = (slurm / "submitted").read_text()
    for line in ("array=0-2%", "time=240", "mem=16G", "partition=gpu", "cpus-per-task=4", "gpus-per-node=1"):
        assert f"#SBATCH --{line}" in submitted
    assert (slurm / "logs" / "jobs").stat().st_mode & 0o077 == 0
    (slurm / "answer").write_text("echo invalid partition >&2; exit 1")
    with pytest.raises(InputError, match=r"sbatch refuses study\.slurm: .*invalid partition"):
        engine.start([0])


def test_slurm_without_its_commands_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ablations.scheduling.engines.on_slurm import SlurmEngine

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="needs sbatch and srun"):
        SlurmEngine(settings.read({"engine": "slurm", "slurm": "{time: 5}"}), Instructions({}, "crew", tmp_path))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("local")
    assert begin(folder, "study", "study.workers=2").wait(900) == 0
    return metrics(folder / "study")


@contextmanager
def ray_cluster() -> Iterator[tuple[Any, Any]]:
    """Two Ray nodes of two CPUs each on this machine, and the second of them."""
    from ray.cluster_utils import Cluster

    before = signal.getsignal(signal.SIGTERM)
    cluster = Cluster()
    try:
        for _ in range(2):
            node = cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20, include_dashboard=False)
        yield cluster, node
    finally:
        cluster.shutdown()
        signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_trials_of_a_ray_node_that_is_killed_are_done_by_another(
    tmp_path: Path, undisturbed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with ray_cluster() as (cluster, second):
        storage = f"study.storage=journal:{tmp_path / 'study.log'}"
        options = ("study.engine=ray", f"study.address={cluster.address}", "study.workers=4", storage)
        study = begin(tmp_path, "disturbed", *options)
        locks = tmp_path / "disturbed" / "locks"
        raylet = second.all_processes["raylet"][0].process.pid
        wait_for(lambda: raylet in [parent(parent(worker)) for worker in in_trial(locks)])
        cluster.remove_node(second, allow_graceful=False)
        assert study.wait(900) == 0, (tmp_path / "disturbed.out").read_text()
    assert metrics(tmp_path / "disturbed") == undisturbed
    assert sum(int(row["attempts"]) for row in rows(tmp_path / "disturbed")) >= 6


@pytest.mark.slow
def test_jobs_whose_time_is_over_and_that_are_killed_go_on(tmp_path: Path, undisturbed: list[dict[str, Any]]) -> None:
    study = begin(
        tmp_path, "disturbed", "study.engine=slurm", "study.workers=2", "study.slurm={cluster: local, time: 60}"
    )
    locks = tmp_path / "disturbed" / "study.db.locks"
    first, second = wait_for(lambda: len(found := in_trial(locks)) == 2 and found)
    os.kill(parent(first), signal.SIGUSR2)  # as SLURM does before the time is over
    os.kill(second, signal.SIGKILL)
    assert study.wait(900) == 0, (tmp_path / "disturbed.out").read_text()
    assert metrics(tmp_path / "disturbed") == undisturbed
    assert sum(int(row["attempts"]) for row in rows(tmp_path / "disturbed")) >= 7


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [("study.engine=ray",), ("study.engine=slurm", "study.slurm={cluster: local, time: 60}")]
)
def test_interrupted_study_stops_and_goes_on_with_another_engine(
    tmp_path: Path, undisturbed: list[dict[str, Any]], options: tuple[str, ...]
) -> None:
    study = begin(tmp_path, "interrupted", "study.workers=2", *options)
    locks = tmp_path / "interrupted" / "study.db.locks"
    workers = wait_for(lambda: in_trial(locks))
    study.send_signal(signal.SIGINT)
    assert study.wait(120) == 1
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    assert begin(tmp_path, "interrupted", "study.workers=2").wait(900) == 0
    assert metrics(tmp_path / "interrupted") == undisturbed
