"""A small study, and runs that take no time."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablations import plan as plans
from ablations.plan import Plan
from ablations.scheduling import crew as crews
from ablations.scheduling import worker
from ablations.scheduling.ledger import StudyLedger
from ablations.scheduling.storage import close, open_storage
from ablations.scheduling.trial import attempt, choosing, patience
from ablations.scheduling.urls import default_url
from ablations.trials import expand, sections
from tasks.system import results
from tasks.system.signals import Stop

TINY = (
    "mixer=pool",
    "model.dim=16",
    "model.depth=1",
    "data.batch_size=32",
    "trainer=smoke",
    "trainer.accelerator=cpu",
    "logger=none",
)

NODE: dict[str, Any] = {
    "name": "small",
    "question": "Does the window matter?",
    "objectives": [{"metric": "test/accuracy"}],
    "seeds": 2,
    "overrides": list(TINY),
    "blocks": [
        {
            "name": "window",
            "factors": {
                "size": {"key": "mixer.size", "levels": [3, 5]},
                "conv": {"key": "shell.conv", "levels": [0, 3]},
            },
            "also": [{"name": "identity", "overrides": ["mixer=identity"]}],
        }
    ],
}


@pytest.fixture
def node() -> dict[str, Any]:
    return deepcopy(NODE)


def fake_config(overrides: Sequence[str]) -> dict[str, Any]:
    """What a stand-in for `compose` makes of overrides."""
    given = dict(text.split("=", 1) for text in overrides)
    lr = float(given.get("optimizer.lr", 2e-3))
    mixer = {"name": given.get("mixer", "pde_ssm")}
    return {"given": given, "optimizer": {"lr": lr}, "logger": {"name": "none"}, "mixer": mixer}


class Runs:
    """Stands for `execute`: scores follow from the configuration; what is in `acts` happens in the numbered runs."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.tuned: dict[str, bool] = {}
        self.acts: dict[str, Callable[[], Any]] = {}

    def __call__(
        self, config: Mapping[str, Any], run_dir: Path, *, callbacks: Sequence[Any], stop: Stop, tuned: bool
    ) -> dict[str, Any]:
        self.begun.append(run_dir.name)
        self.tuned[run_dir.name] = tuned
        run_dir.mkdir(parents=True)
        results.write_yaml(run_dir / "config.yaml", config)
        status = self.acts.get(run_dir.name, lambda: None)() or "ok"
        lr = config["optimizer"]["lr"]
        score = 1 - abs(lr - 1e-3) + int(config["given"]["seed"]) / 8
        metrics = {"status": status, "seed": int(config["given"]["seed"]), "macs": round(1e3 / lr)}
        if status == "ok":
            metrics |= {"val/accuracy": score}
            if config["given"].get("trainer.test") != "false":
                metrics |= {"test/accuracy": score}
        results.write_json(run_dir / "metrics.json", metrics)
        return metrics


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    stand_in = Runs()
    monkeypatch.setattr(attempt, "execute", stand_in)
    monkeypatch.setattr(attempt, "compose", fake_config)
    monkeypatch.setattr(choosing, "compose", fake_config)
    monkeypatch.setattr(patience, "PAUSE", 0.05)
    return stand_in


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Studies write below the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return tmp_path


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch, runs: Runs) -> Runs:
    """Workers in this process, and a report that is one word."""

    def carry_out(self: Any) -> list[str]:
        plan = plans.read(self._request.node)
        worker.work(plan, self._ledger, self._request.directory, Stop())
        return []

    monkeypatch.setattr(crews.Crew, "carry_out", carry_out)
    monkeypatch.setattr("ablations.report.build", lambda directory: Path(directory, "report.html"))
    return runs


class Bench:
    """A study without command line and processes: `join` as a machine does, `work` as a worker does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = default_url(directory)
        self.opened: list[Any] = []

    def join(self, node: Mapping[str, Any], given: Sequence[str] = ()) -> tuple[Plan, StudyLedger]:
        plan = plans.read(node)
        self.directory.mkdir(exist_ok=True)
        self.opened.append(open_storage(self.url))
        ledger = StudyLedger.join(
            self.opened[-1],
            self.url,
            plan.name,
            self.directory / "locks",
            sections=sections(plan, given),
            objectives=plan.objectives,
        )
        ledger.enroll(expand(plan, given))
        return plan, ledger

    def work(self, node: Mapping[str, Any], stop: Stop | None = None) -> StudyLedger:
        plan, ledger = self.join(node)
        worker.work(plan, ledger, self.directory, stop or Stop())
        return ledger


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "study")
    yield made
    for storage in made.opened:
        close(storage)


def together(bench: Bench, node: dict[str, Any], count: int) -> None:
    """Several workers at once, each with a storage of its own."""
    joined = [bench.join(node) for _ in range(count)]
    workers = [
        threading.Thread(target=worker.work, args=(plan, ledger, bench.directory, Stop())) for plan, ledger in joined
    ]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()


class Attributes:
    """Stands for an Optuna study where only its attributes are asked for."""

    def __init__(self) -> None:
        self.user_attrs: dict[str, Any] = {}

    def set_user_attr(self, key: str, value: Any) -> None:
        """As Optuna's storages do, which keep JSON."""
        self.user_attrs[key] = json.loads(json.dumps(value))


def empty_ledger() -> Any:
    """Stands for the ledger of a study without trials."""
    return SimpleNamespace(study=Attributes(), url="sqlite:///study.db", entries=list)


def metrics_of(ledger: StudyLedger) -> dict[int, Any]:
    """Metrics of each trial, as JSON has them."""
    return {e.planned.number: json.loads(json.dumps(dict((e.result or {})["metrics"]))) for e in ledger.entries()}


@pytest.fixture
def postgresql() -> Iterator[str]:
    """URL of a PostgreSQL server of its own, from Debian's package."""
    pytest.importorskip("psycopg", reason="needs psycopg, PostgreSQL's driver")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    owner: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="zoo-pg-") as folder:
        data = Path(folder, "data")
        if os.getuid() == 0:  # the server refuses to be root
            shutil.chown(folder, "postgres")
            owner = {"user": "postgres"}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]

        def call(program: str, *arguments: str) -> None:
            command = [str(programs[-1] / program), "-D", str(data), *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **owner)

        call("initdb", "-U", "zoo", "-A", "trust", "--no-sync")
        log = ["-l", f"{folder}/log", "-w", "-t", "300"]
        call("pg_ctl", *log, "-o", f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off", "start")
        try:
            yield f"postgresql+psycopg://zoo@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-m", "immediate", "stop")
