"""Wherever workers run and whatever becomes of them: the planned trials, each once, with the same metrics."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from tests.ablations.conftest import NODE, TINY
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
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def metrics(directory: Path) -> list[dict[str, Any]]:
    table = rows(directory)
    assert [row["number"] for row in table] == [str(number) for number in range(5)]
    assert {row["state"] for row in table} == {"complete"}
    runs = [json.loads((path / "metrics.json").read_text()) for path in sorted((directory / "trials").iterdir())]
    return [{key: value for key, value in run.items() if key not in TIMES} for run in runs]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("local")
    assert begin(folder, "study", "study.workers=2").wait(900) == 0
    return metrics(folder / "study")


@contextmanager
def ray_cluster() -> Iterator[tuple[Any, Any]]:
    """Two Ray nodes of two CPUs each on this machine, and the second of them."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        yield cluster, cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    finally:
        cluster.shutdown()


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
        wait_for(lambda: len(in_trial(locks)) == 4)
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
