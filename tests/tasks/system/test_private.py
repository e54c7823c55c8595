"""The private interfaces of Lightning and Hydra are there and do what is asked of them."""

from __future__ import annotations

import inspect

import pytest
import torch
from hydra._internal import utils
from hydra._internal.hydra import Hydra
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch.utils.data import DataLoader

from tasks.system.hydra_private import arguments_parser, mode_by_flag
from tasks.system.lightning_private import OpenAveraging, validation_is_due


class Line(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        return self.layer(batch).square().mean()

    def validation_step(self, batch: torch.Tensor, _: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.5)


class Due(Callback):
    def __init__(self) -> None:
        self.seen: list[bool] = []

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        self.seen.append(validation_is_due(trainer))


class Swaps(OpenAveraging):
    def __init__(self) -> None:
        super().__init__(use_buffers=False)
        self.swaps = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.place(torch.device("cpu"))
        super().setup(trainer, pl_module, stage)

    def swap(self, module: LightningModule) -> None:
        self.swaps += 1
        super().swap(module)


@pytest.mark.filterwarnings("ignore")
def test_what_the_loop_says_of_validation_and_when_the_average_is_swapped() -> None:
    due, swaps, module = Due(), Swaps(), Line()
    trainer = Trainer(
        max_epochs=1, val_check_interval=2, callbacks=[due, swaps], accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    data = DataLoader(torch.ones(4, 1))
    trainer.fit(module, data, data)
    assert due.seen == [False, True, False, True], "Lightning's fit_loop.epoch_loop._should_check_val_fx"
    assert swaps.swaps == 4, "Lightning's WeightAveraging._swap_models is not called around each validation"
    average = swaps.average
    assert average is not None, "Lightning's WeightAveraging._average_model"
    with torch.no_grad():
        average.module.layer.weight.fill_(7.0)
    swaps.lend(module)
    assert module.layer.weight.item() == 7.0, "Lightning's WeightAveraging._copy_average_to_current"


def test_device_of_the_average() -> None:
    assert "self._device" in inspect.getsource(WeightAveraging), "Lightning's WeightAveraging._device"


def test_parser_of_hydras_command_line() -> None:
    given = arguments_parser().parse_args(["a=1", "--multirun"])
    assert (given.overrides, given.multirun) == (["a=1"], True)


def test_mode_by_flag_composes_nothing_and_is_undone() -> None:
    before = Hydra.get_mode
    with mode_by_flag():
        assert Hydra.get_mode(None, config_name="nope", overrides=[]) is None
    assert Hydra.get_mode is before
    assert "hydra.get_mode(" in inspect.getsource(utils._run_hydra), "Hydra composes elsewhere to see the mode"
