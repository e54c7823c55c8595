"""Image classification: loss, scores, and the predictions on the test split."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from tasks import optim
from tasks.configuration import OptimizerConfig, TaskConfig
from tasks.data import BatchMix
from tasks.divergence import DivergedError, first_nonfinite

Batch = dict[str, Tensor]


class Scores(nn.Module):
    """Mean loss (cross-entropy), top-1 and top-5 accuracy and calibration error (15 bins, L1; arXiv 1706.04599)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.loss: Metric = MeanMetric(nan_strategy="disable")  # the default drops NaN, which would hide a divergence
        self.accuracy: Metric = MulticlassAccuracy(num_classes, average="micro")
        self.accuracy_top5: Metric = MulticlassAccuracy(num_classes, average="micro", top_k=min(5, num_classes))
        self.ece: Metric = MulticlassCalibrationError(num_classes, n_bins=15, norm="l1")

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Take in one batch: logits (B, num_classes), label (B,)."""
        self.loss.update(F.cross_entropy(logits, label, reduction="none"))
        for metric in (self.accuracy, self.accuracy_top5):
            metric.update(logits, label)
        self.ece.update(logits.softmax(dim=-1), label)

    def collect(self) -> dict[str, float]:
        """The scores of everything taken in since the last call, over all devices."""
        scores = {}
        for name, metric in self.named_children():
            assert isinstance(metric, Metric)
            scores[name] = float(metric.compute())
            metric.reset()
        return scores


class Classification(LightningModule):
    """Trains and evaluates a classifier.

    Args:
        model: maps images (B, C, H, W) to logits (B, num_classes); may have `no_weight_decay()` and `backend`.
        num_classes: number of classes.
        task, optimizer: see there.
        seed: keys the random numbers inside the model (drop path, dropout) of every step.
        fused: see `tasks.optim.create`.
        log_every: optimiser steps between points of the training curve.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        task: TaskConfig,
        optimizer: OptimizerConfig,
        seed: int = 0,
        fused: bool = True,
        log_every: int = 20,
    ) -> None:
        super().__init__()
        self.model = model
        self.task, self.optimizer_config = task, optimizer
        self.seed, self.fused, self.log_every = seed, fused, log_every
        self.mix = BatchMix(num_classes)
        self.val_scores, self.test_scores = Scores(num_classes), Scores(num_classes)
        self.backend = ""
        self._last: Batch = {}
        self._predictions: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) in float32 of images (B, C, H, W)."""
        return self.model(images).float()

    def on_fit_start(self) -> None:
        """Note what serves the mixers, now that the model is on its device."""
        self.backend = getattr(self.model, "backend", "")

    def on_test_start(self) -> None:
        """As `on_fit_start`; and forget earlier predictions."""
        self.backend = getattr(self.model, "backend", "")
        self._predictions = []

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Key this step's random numbers, so that they depend neither on what came before nor on a restart."""
        seed = step_seed(self.seed, self.current_epoch, batch_idx, self.global_rank)
        # `torch.manual_seed` would, without a GPU, queue a stack trace for it: a millisecond and a leak, every step.
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy, with soft targets where images are mixed.

        Raises:
            DivergedError: it is not finite, on any device.
        """
        target = batch["label"]
        if "mix" in batch:
            batch = self.mix(batch)
            target = batch["target"]
        loss = F.cross_entropy(self(batch["image"]), target, label_smoothing=self.task.label_smoothing)
        self._last = batch
        self._check(bool(torch.isfinite(loss)))
        if (self.global_step + 1) % self.log_every == 0:
            self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Take in a batch of the validation split."""
        self._last = batch
        self.val_scores.update(self(batch["image"]), batch["label"])

    def on_validation_epoch_end(self) -> None:
        """Log `val/…`.

        Raises:
            DivergedError: the loss is not finite.
        """
        self._report("val", self.val_scores)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Take in a batch of the test split and keep its predictions."""
        self._last = batch
        logits = self(batch["image"])
        self.test_scores.update(logits, batch["label"])
        self._predictions.append((batch["index"].cpu(), batch["label"].cpu(), logits.cpu()))

    def on_test_epoch_end(self) -> None:
        """Log `test/…`; raises as validation does."""
        self._report("test", self.test_scores)

    def predictions(self) -> dict[str, npt.NDArray[Any]]:
        """Of every test image: `index` (N,), `label` (N,) and `logits` (N, num_classes) float32, in order of index.

        Every process has to call it.
        """
        own = [torch.cat(column).numpy() for column in zip(*self._predictions, strict=True)]
        gathered: list[Any] = [own]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            gathered = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(gathered, own)
        index, label, logits = (np.concatenate(column) for column in zip(*gathered, strict=True))
        order = np.argsort(index)
        return {"index": index[order], "label": label[order], "logits": logits[order]}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW; its learning rate changes step by step."""
        total = int(self.trainer.estimated_stepping_batches)
        per_epoch = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
        wishes: set[str] = getattr(self.model, "no_weight_decay", set)()
        optimizer, scheduler = optim.create(
            self.model.named_parameters(),
            self.optimizer_config,
            total=total,
            epochs=max(1.0, total / per_epoch),
            exempt=wishes,
            fused=self.fused,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _report(self, split: str, scores: Scores) -> None:
        values = scores.collect()
        self._check(bool(np.isfinite(values["loss"])))
        for name, value in values.items():
            self.log(f"{split}/{name}", value, prog_bar=(split, name) == ("val", "accuracy"))

    def _check(self, finite: bool) -> None:
        # Every rank has to stop, or the others would wait for it forever.
        if self.trainer.world_size > 1:
            finite = self.trainer.strategy.reduce_boolean_decision(finite, all=True)
        if not finite:
            # `forward`, because a compiled call does not see hooks.
            layer = first_nonfinite(self.model, lambda: self.model.forward(self._last["image"]))
            raise DivergedError(self.global_step, layer)


def step_seed(seed: int, epoch: int, batch: int, rank: int) -> int:
    """Seed of the random numbers that a model draws in one training step on one rank."""
    key = f"{seed}/{epoch}/{batch}/{rank}/step".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "little")
