from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment

from operators import InputError
from tasks.config.composition import compose
from tasks.run.execute import execute
from tasks.system import environment
from tests.tasks.conftest import TINY

NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_PORT")
THREADS = ("NUMBA_NUM_THREADS",)
SLURM = ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")


@pytest.mark.parametrize("name", [*NAMES, *SLURM, *THREADS])
@pytest.mark.parametrize("value", ["x", "-1", "1.5", "", "²", "99999999999"])
def test_number_that_is_none_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=rf"{name}={value!r} in the environment must be an integer") as caught:
        environment.check()
    assert "\n" not in str(caught.value)
    assert environment.rank() >= 0


def test_a_cache_that_cannot_be_made_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/dev/null/x")
    with pytest.raises(InputError, match="TORCHINDUCTOR_CACHE_DIR=/dev/null/x in the environment is no folder"):
        environment.check()


def test_run_refuses_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "x")
    with pytest.raises(InputError, match="LOCAL_RANK='x' in the environment"):
        execute(compose(TINY), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rank_is_less_than_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="RANK=3 in the environment must be less than WORLD_SIZE=2"):
        environment.check()


@pytest.mark.parametrize(("step", "started"), [(None, False), ("0", True), ("4294967290", False), ("x", False)])
def test_step_of_srun(step: str | None, started: bool) -> None:
    assert environment.started_by_srun({} if step is None else {"SLURM_STEP_ID": step}) is started


def test_run_inside_an_allocation_is_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SLURM_NTASKS": "2",
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NAME": "mine",
        "SLURM_PROCID": "0",
    }.items():
        monkeypatch.setenv(name, value)
    seen: list[bool] = []

    class Look(Callback):
        def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            seen.append(isinstance(trainer._accelerator_connector.cluster_environment, LightningEnvironment))

    metrics = execute(
        compose([*TINY, "trainer.max_steps=1", "trainer.test=false"]), tmp_path / "run", callbacks=[Look()]
    )
    assert metrics["status"] == "ok"
    assert seen == [True]


def test_steps_of_srun_that_do_not_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "mine", "SLURM_STEP_ID": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="ntasks-per-node"):
        execute(compose(TINY), tmp_path / "run")
