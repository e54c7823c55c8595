"""What a run would need of a device: memory and time, estimated without data and without training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import models
from tasks.config.schema import RunConfig
from tasks.config.task import ClassificationConfig, GenerationConfig
from tasks.data import BatchMix, ImageData
from tasks.flow import paths
from tasks.flow.loss import flow_loss
from tasks.planning.calibrate import Rates
from tasks.planning.simulate import Ledger, materialise, simulated

_DTYPES = {"32": torch.float32, "64": torch.float64, "16": torch.float16, "bf16": torch.bfloat16}
STATES = 2
"""Moments that AdamW keeps of each parameter."""
SWEEPS = 3
"""Forward once, backward twice: gradients of the inputs and of the weights."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        weights: parameters and buffers.
        gradients, optimizer, average: what belongs to each parameter while training; `average` is `trainer.ema`'s.
        buckets: copies of the gradients that processes exchange.
        activations: the batch, what autograd keeps, and temporaries, at the peak of a training step.
        inference: weights and everything else at the peak of one evaluation of the model without gradients.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    buckets: int
    activations: int
    inference: int

    @property
    def training(self) -> int:
        """The peak of a training step."""
        return self.weights + self.gradients + self.optimizer + self.average + self.buckets + self.activations


@dataclass(frozen=True)
class Work:
    """What one step on one device does.

    Attributes:
        images: in the step.
        macs: multiply-accumulates.
        traffic: bytes that operations read and write.
        calls: operations.
    """

    images: int
    macs: int
    traffic: int
    calls: int

    def images_per_second(self, rates: Rates) -> tuple[float | None, float]:
        """A bracket. From above: nothing but multiply-accumulates at the rate of a matrix product. From below: also

        every operation reads and writes main memory and costs a call, and nothing overlaps; None without a bandwidth.
        """
        least = self.macs / rates.macs
        if rates.bandwidth is None:
            return None, self.images / least
        most = least + self.traffic / rates.bandwidth + self.calls * rates.call
        return self.images / most, self.images / least


def dtypes(precision: str) -> tuple[torch.dtype, torch.dtype]:
    """The type of the parameters, and the one of the products, of a `trainer.precision`."""
    name, _, kind = precision.partition("-")
    return (torch.float32 if kind == "mixed" else _DTYPES[name]), _DTYPES[name]


def estimate(
    run: RunConfig,
    data: ImageData,
    shape: tuple[int, int, int],
    build: Callable[[], models.Trunk],
    *,
    batch: int,
    processes: int,
) -> tuple[Memory, Work, Work]:
    """Memory, and the work of a training step and of one evaluation without gradients.

    Args:
        run: what to estimate.
        data: of its number of classes and augmentation.
        shape: (C, H, W) of what the model takes.
        build: makes the model; called where tensors have no storage.
        batch: images of a training step on one device.
        processes: of the run.
    """
    stored, used = dtypes(run.trainer.precision)
    mixed = stored != used

    with torch.device("meta"):
        trained_one, evaluated_one = build(), build()
    with simulated() as ledger:
        trunk = materialise(trained_one, "cpu", stored).train()
        weights = ledger.live
        trained = [parameter for parameter in trunk.parameters() if parameter.requires_grad]
        for parameter in trained:
            # They live until the next backward pass begins.
            parameter.grad = torch.empty_like(parameter)
        gradients = ledger.live - weights
        _restart(ledger)
        with _autocast(mixed, used):
            loss = _loss(run, trunk, data, (batch, *shape), stored)
        if run.trainer.accumulate == 1:
            for parameter in trained:
                parameter.grad = None
        loss.backward()
        activations = ledger.peak - weights - gradients
        # AdamW reads parameter, gradient and both moments, and writes all but the gradient.
        training = (ledger.traffic + (4 + STATES + 1) * gradients, ledger.calls)

    evaluated = batch
    if run.sample is not None:
        evaluated = run.sample.batch_size * (1 if run.sample.guidance in (0, 1) else 2)
    with simulated() as ledger, torch.no_grad():
        trunk = materialise(evaluated_one, "cpu", stored).eval()
        _restart(ledger)
        with _autocast(mixed, used):
            _evaluate(trunk, (evaluated, *shape), stored)
        inference, forward = ledger.peak, (ledger.traffic, ledger.calls)
    average = weights if run.trainer.ema else 0
    memory = Memory(
        weights=weights,
        gradients=gradients,
        optimizer=STATES * gradients,
        average=average,
        buckets=gradients if processes > 1 else 0,
        activations=activations,
        inference=inference + average,
    )
    macs = trunk.cost(*shape[1:]).macs
    sweeps = SWEEPS + int(trunk.spec.checkpointing)
    return memory, Work(batch, sweeps * macs * batch, *training), Work(evaluated, macs * evaluated, *forward)


def _restart(ledger: Ledger) -> None:
    ledger.peak, ledger.traffic, ledger.calls = ledger.live, 0, 0


def _autocast(mixed: bool, dtype: torch.dtype) -> AbstractContextManager[object]:
    return torch.autocast("cpu", dtype) if mixed else nullcontext()


def _loss(
    run: RunConfig, model: models.Trunk, data: ImageData, shape: tuple[int, int, int, int], dtype: torch.dtype
) -> Tensor:
    """The loss of `tasks.classification` and `tasks.generation`, of a batch without values."""
    images = torch.empty(shape, dtype=dtype)
    batch, channels = shape[:2]
    label = torch.empty(batch, dtype=torch.int64)
    if isinstance(run.task, ClassificationConfig):
        target = label
        if data.augment.mixes:
            mixed = BatchMix(data.num_classes)({"image": images, "label": label, "mix": torch.empty(batch, 5)})
            inputs, target = mixed["image"].to(dtype), mixed["target"]
        else:
            inputs = images
        return F.cross_entropy(model(inputs).float(), target, label_smoothing=run.task.label_smoothing)
    assert isinstance(run.task, GenerationConfig)
    x = images * torch.empty(channels, 1, 1) + torch.empty(channels, 1, 1)

    def predict(noisy: Tensor, time: Tensor, label: Tensor) -> Tensor:
        return model(noisy.to(dtype), time, label).to(noisy.dtype)

    noise, time = torch.empty_like(x), torch.empty(batch, dtype=x.dtype)
    losses = flow_loss(predict, paths.get(run.task.path), run.task.prediction, x, label, time, noise)
    return losses.prediction.mean()


def _evaluate(model: models.Trunk, shape: tuple[int, int, int, int], dtype: torch.dtype) -> Tensor:
    images = torch.empty(shape, dtype=dtype)
    batch = len(images)
    if isinstance(model, models.VisionTransformer):
        return model(images).float()
    time, label = torch.empty(batch), torch.empty(batch, dtype=torch.int64)
    return model(images, time, label).float()
