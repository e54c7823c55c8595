"""Image classification: loss, scores, and the predictions on the test split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from operators.precision import wide
from tasks.base import Batch, Task
from tasks.configuration import ClassificationConfig
from tasks.data import BatchMix


class Scores(Metric):
    """Mean loss (cross-entropy), top-1 and top-5 accuracy and calibration error (15 bins, L1; arXiv 1706.04599).

    All are made of sums in float64, so that batches and processes add up to the same whatever the images' shares.
    """

    BINS = 15
    full_state_update = False
    right: Tensor
    totals: Tensor
    bins: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.most = min(5, num_classes)
        for name, shape in (("right", (2,)), ("totals", (2,)), ("bins", (2, self.BINS))):
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Take in one batch: logits (B, num_classes), label (B,)."""
        logits = logits.double()
        loss = F.cross_entropy(logits, label, reduction="sum")
        self.totals += torch.stack([loss, loss.new_tensor(len(label))])
        hits = logits.topk(self.most).indices == label[:, None]
        confidence = logits.softmax(dim=-1).amax(dim=-1)
        self.right += torch.stack([hits[:, 0].sum(), hits.sum()])
        # the interval (i / 15, (i + 1) / 15] that the confidence lies in
        inside = (confidence * self.BINS).ceil().long().sub(1).clamp(0, self.BINS - 1)
        self.bins.index_put_((torch.zeros_like(inside), inside), hits[:, 0].double(), accumulate=True)
        self.bins.index_put_((torch.ones_like(inside), inside), confidence, accumulate=True)

    def compute(self) -> dict[str, float]:
        """`loss`, `accuracy`, `accuracy_top5`, `ece`."""
        loss, count = self.totals.tolist()
        top1, top5 = (self.right / count).tolist()
        # of a bin with n images, n |accuracy - confidence| is the difference of the sums
        ece = float((self.bins[0] - self.bins[1]).abs().sum()) / count
        return {"loss": loss / count, "accuracy": top1, "accuracy_top5": top5, "ece": ece}

    def collect(self) -> dict[str, float]:
        """The scores of everything taken in since the last call, over all devices; and forget."""
        scores: dict[str, float] = self.compute()
        self.reset()
        return scores


class Classification(Task):
    """Trains and evaluates a classifier.

    Args:
        model: maps images (B, C, H, W) to logits (B, num_classes).
        num_classes: number of classes.
        task: see there.
        more: arguments of `Task`.
    """

    monitor = ("val/accuracy", "max")

    def __init__(self, model: nn.Module, *, num_classes: int, task: ClassificationConfig, **more: Any) -> None:
        super().__init__(model, **more)
        self.task = task
        self.mix = BatchMix(num_classes)
        self.val_scores, self.test_scores = Scores(num_classes), Scores(num_classes)
        self._predictions: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes), in float32 at least, of images (B, C, H, W)."""
        logits: Tensor = self.model(images)
        return logits.to(wide(logits.dtype))

    def repeat(self, batch: Batch) -> None:
        """Run the model on the images."""
        self.model.forward(batch["image"])  # `forward`, because a compiled call does not see hooks

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy, with soft targets where images are mixed.

        Raises:
            DivergedError: it is not finite, on any device.
        """
        target = batch["label"]
        if "mix" in batch:
            batch = self.mix(batch)
            target = batch["target"]
        self._last = batch
        loss = F.cross_entropy(self(batch["image"]), target, label_smoothing=self.task.label_smoothing)
        self.log_loss(loss)
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
        self.report("val", self.val_scores.collect())

    def on_test_start(self) -> None:
        """As in `Task`; and forget earlier predictions."""
        super().on_test_start()
        self._predictions = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Take in a batch of the test split and keep its predictions."""
        self._last = batch
        logits = self(batch["image"])
        self.test_scores.update(logits, batch["label"])
        self._predictions.append((batch["index"].cpu(), batch["label"].cpu(), logits.float().cpu()))

    def on_test_epoch_end(self) -> None:
        """Log `test/…`; raises as validation does."""
        self.report("test", self.test_scores.collect())

    def predictions(self) -> dict[str, npt.NDArray[Any]]:
        """Of every test image: `index` (N,), `label` (N,) and `logits` (N, num_classes) float32, in order of index.

        Every process has to call it.
        """
        own = [torch.cat(column).numpy() for column in zip(*self._predictions, strict=True)]
        columns = zip(*self.gathered(own), strict=True)
        index, label, logits = (np.concatenate(column) for column in columns)
        order = np.argsort(index)
        return {"index": index[order], "label": label[order], "logits": logits[order]}

    def conclude(self, run_dir: Path) -> None:
        """Write `predictions.npz`."""
        predictions = self.predictions()
        if self.trainer.is_global_zero:
            np.savez_compressed(run_dir / "predictions.npz", allow_pickle=False, **predictions)
