"""All private interfaces of Lightning that this project uses: what an upgrade of Lightning breaks, it breaks here.

`tests/tasks/system/test_private.py` names the one that is gone.
"""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import AveragedModel


def validation_is_due(trainer: Trainer) -> bool:
    """Whether validation follows the training batch that has just ended."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


class OpenAveraging(WeightAveraging):
    """Lightning's average of weights, with what a subclass needs of it: the average, its device, and the swap."""

    def place(self, device: torch.device) -> None:
        """Keep the average on this device."""
        self._device = device

    @property
    def average(self) -> AveragedModel | None:
        """The average; None before `setup`, and where nothing is trained."""
        return self._average_model

    def swap(self, module: LightningModule) -> None:
        """Exchange the weights of the model and the average; Lightning calls it around validation and test."""
        super()._swap_models(module)

    def lend(self, module: LightningModule) -> None:
        """Copy the average to the model."""
        self._copy_average_to_current(module)

    def _swap_models(self, pl_module: LightningModule) -> None:
        self.swap(pl_module)
