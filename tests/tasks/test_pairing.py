"""Arms of a comparison differ in their mixer and in nothing else: whole runs of several arms, bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from tasks.config.composition import compose
from tasks.run.execute import execute
from tests.mixers import every_mixer

SMALL = (
    "model.dim=16",
    "model.depth=2",
    "data.batch_size=32",
    "trainer=smoke",
    "trainer.accelerator=cpu",
    "trainer.test=false",
    "logger=none",
)
CLASSIFICATION = (
    *SMALL,
    "data.augment.randaugment={ops: 2, magnitude: 9}",
    "data.augment.mixup=0.8",
    "data.augment.cutmix=1.0",
    "data.augment.erasing=0.25",
)
GENERATION = ("task=generation", *SMALL, "task.network=null", "sample.every=0", "task.times=logit_normal")


class Witness(Callback):
    """Keeps the parameters at the start, every batch, and what each call of the model is given."""

    def __init__(self) -> None:
        self.start: dict[str, Tensor] = {}
        self.batches: list[dict[str, Tensor]] = []
        self.calls: list[tuple[Tensor, ...]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model: Any = pl_module.model
        self.start = {name: value.clone() for name, value in model.state_dict().items()}
        model.register_forward_pre_hook(lambda _, given: self.calls.append(tuple(x.clone() for x in given)))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batches.append({name: value.clone() for name, value in batch.items()})


def witness(arm: tuple[str, ...], overrides: tuple[str, ...], run_dir: Path) -> Witness:
    seen = Witness()
    assert execute(compose([*overrides, *arm]), run_dir, callbacks=[seen])["status"] == "ok"
    return seen


ARMS = [
    ("mixer=pde_ssm", "pde.terms=[]"),
    ("mixer=attention", "shell=published"),
    ("mixer=pool", "shell.conv=3"),
]


@pytest.fixture(scope="module", params=[CLASSIFICATION, GENERATION], ids=["classification", "generation"])
def reference(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tuple[str, ...], Witness]:
    return request.param, witness(("mixer=identity",), request.param, tmp_path_factory.mktemp("identity"))


@pytest.mark.parametrize("mixer", every_mixer(but=("identity",)))
def test_mixers_share_everything_else(mixer: str, reference: tuple[tuple[str, ...], Witness], tmp_path: Path) -> None:
    check_shared((f"mixer={mixer}",), *reference, tmp_path)


@pytest.mark.parametrize("arm", ARMS, ids=" ".join)
def test_arms_share_everything_but_the_mixer(
    arm: tuple[str, ...], reference: tuple[tuple[str, ...], Witness], tmp_path: Path
) -> None:
    check_shared(arm, *reference, tmp_path)


def check_shared(arm: tuple[str, ...], overrides: tuple[str, ...], expected: Witness, tmp_path: Path) -> None:
    found = witness(arm, overrides, tmp_path / "run")
    outside = {name for name in expected.start if ".mixer." not in name}
    assert outside == {name for name in found.start if ".mixer." not in name}
    assert len(outside) > 10
    for name in outside:
        assert torch.equal(found.start[name], expected.start[name]), name
    assert len(found.batches) == len(expected.batches) > 0
    for mine, theirs in zip(found.batches, expected.batches, strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert torch.equal(mine[name], theirs[name]), name
    # The images as the model sees them: noise, times and dropped labels of generation are among its arguments.
    assert len(found.calls) == len(expected.calls) > 0
    for given, wanted in zip(found.calls, expected.calls, strict=True):
        assert len(given) == len(wanted) == (3 if overrides is GENERATION else 1)
        for mine, theirs in zip(given, wanted, strict=True):
            assert torch.equal(mine, theirs)


def test_another_seed_shares_nothing(reference: tuple[tuple[str, ...], Witness], tmp_path: Path) -> None:
    overrides, expected = reference
    found = witness(("mixer=identity", "seed=1"), overrides, tmp_path / "run")
    assert not torch.equal(found.batches[0]["image"], expected.batches[0]["image"])
    for given, wanted in zip(found.calls[0], expected.calls[0], strict=True):
        assert not torch.equal(given, wanted)
    drawn = [name for name, value in expected.start.items() if value.is_floating_point() and value.std() > 1e-3]
    drawn = [name for name in drawn if "position" not in name]
    assert drawn
    for name in drawn:
        assert not torch.equal(found.start[name], expected.start[name]), name
