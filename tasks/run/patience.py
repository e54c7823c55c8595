"""Early stopping on the validation split."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class Patience(Callback):
    """Ends training after so many validations in a row without a better score than the best before them.

    The test split plays no part. The count is part of a checkpoint; a run that has ended so ends again when continued,
    unless it is given more patience.

    Args:
        monitor: score of the validation split, and `min` or `max`.
        patience: number of validations.
    """

    def __init__(self, monitor: tuple[str, str], patience: int) -> None:
        (self._name, self._mode), self._patience = monitor, patience
        self._best: Tensor | None = None
        self._waited = 0

    @property
    def exhausted(self) -> bool:
        """Whether it ends the run."""
        return self._waited >= self._patience

    def state_dict(self) -> dict[str, Any]:
        """The best score, and the validations since."""
        return {"score": self._best, "waited": self._waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from where a saved run stood."""
        self._best, self._waited = state_dict["score"], state_dict["waited"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End at once a run that has ended before."""
        trainer.should_stop = trainer.should_stop or self.exhausted

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare, count, and end the run if it is time."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        score = trainer.callback_metrics[self._name].detach().cpu()
        best = self._best
        if best is None or bool(score > best if self._mode == "max" else score < best):
            self._best, self._waited = score.clone(), 0
        else:
            self._waited += 1
        trainer.should_stop = trainer.should_stop or self.exhausted
