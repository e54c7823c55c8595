"""What a run would need of a device: memory and time, estimated without data and without training."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import models
from tasks.base import Task
from tasks.config.images import Images
from tasks.config.schema import RunConfig
from tasks.data import KeyedData
from tasks.planning.calibrate import Rates
from tasks.planning.simulate import Ledger, materialise, simulated
from tasks.run.building import build_module, dtypes

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


def estimate(
    run: RunConfig, data: KeyedData, images: Images, *, batch: int, processes: int
) -> tuple[Memory, Work, Work]:
    """Memory, and the work of a training step and of one evaluation without gradients.

    Args:
        run: what to estimate.
        data: its augmentation, and what its images look like.
        images: that the model is made for.
        batch: images of a training step on one device.
        processes: of the run.
    """
    stored, used = dtypes(run.trainer.precision)
    mixed = stored != used
    task, evaluated_task = (_task(run, data, images, stored) for _ in range(2))
    with simulated() as ledger:
        trunk = materialise(task.model, "cpu").train()
        weights = ledger.live
        trained = [parameter for parameter in trunk.parameters() if parameter.requires_grad]
        for parameter in trained:
            # They live until the next backward pass begins.
            parameter.grad = torch.empty_like(parameter)
        gradients = ledger.live - weights
        _restart(ledger)
        with _autocast(mixed, used):
            loss = task.rehearse(torch.empty(batch, *images.input, dtype=stored), mixes=data.augment.mixes)
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
        model = materialise(evaluated_task.model, "cpu").eval()
        assert isinstance(model, models.Trunk)
        _restart(ledger)
        with _autocast(mixed, used):
            _evaluate(model, (evaluated, *images.input), stored)
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
    macs = model.cost(*images.input[1:]).macs
    sweeps = SWEEPS + int(model.spec.checkpointing)
    return memory, Work(batch, sweeps * macs * batch, *training), Work(evaluated, macs * evaluated, *forward)


def _restart(ledger: Ledger) -> None:
    ledger.peak, ledger.traffic, ledger.calls = ledger.live, 0, 0


def _autocast(mixed: bool, dtype: torch.dtype) -> AbstractContextManager[object]:
    return torch.autocast("cpu", dtype) if mixed else nullcontext()


def _task(run: RunConfig, data: KeyedData, images: Images, dtype: torch.dtype) -> Task:
    """The run's task without storage. One that works in latents takes them for images: nothing is encoded."""
    model = run.build(images, device="meta")
    if images.input[1:] == images.image_size:
        task = build_module(run, model, images, data, None)
    else:
        channels, height, width = images.input
        task = build_module(run, model, replace(images, channels=channels, image_size=(height, width)), None, None)
    return task.to(dtype)


def _evaluate(model: models.Trunk, shape: tuple[int, int, int, int], dtype: torch.dtype) -> Tensor:
    images = torch.empty(shape, dtype=dtype)
    batch = len(images)
    if not isinstance(model, models.GenerativeTrunk):
        return model(images).float()
    time, label = torch.empty(batch), torch.empty(batch, dtype=torch.int64)
    return model(images, time, label).float()
