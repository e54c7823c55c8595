"""A training step and an inference of a task, carried out on its device and timed, with images that are noise."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import chain

import torch
from lightning.pytorch.plugins import Precision
from torch import Tensor

import models
from models.blocks import DropPath
from operators.benchmark.measuring.clock import peak_bytes
from operators.benchmark.workload import Target
from tasks import optim
from tasks.base import Batch, Task
from tasks.config.images import Images
from tasks.config.schema import RunConfig

SECONDS = 0.5
"""Of each measurement, unless fewer than `LEAST` repetitions take longer."""
LEAST = 3
MOST = 50
STEPS = 1000
"""What a schedule is told; no rate depends on it while nothing counts steps."""


class StepBench:
    """A task on its device, with everything that a training step takes.

    A step is `trainer.accumulate` batches forward and backward, clipping and the optimiser. Reading images, Lightning's
    own work and the weight average are left out. The weights change: give a task that is not needed any more.

    Args:
        settings: of the run.
        module: its task.
        images: that the model is made for.
        batch: images of a batch, on this device.
        mixes: whether images are mixed in training.
        precision: Lightning's plugin.
        device: to run on.
    """

    def __init__(
        self,
        settings: RunConfig,
        module: Task,
        images: Images,
        *,
        batch: int,
        mixes: bool,
        precision: Precision,
        device: torch.device,
    ) -> None:
        assert isinstance(module.model, models.Trunk)
        self._module, self._precision, self._device = module.to(device), precision, device
        self._model = module.model
        self._trainer = settings.trainer
        for layer in module.modules():
            if isinstance(layer, DropPath):
                layer.kept = None  # of the last batch of a run
        dtype = next(module.model.parameters()).dtype
        pixels = (images.channels, *images.image_size)
        self._batch: Batch = module.blank(torch.randn(batch, *pixels, device=device).to(dtype))
        if mixes:
            self._batch["mix"] = torch.zeros(batch, 5, dtype=dtype, device=device)
        self._input = torch.randn(batch, *images.input, device=device).to(dtype)
        self._optimizer, _ = optim.create(
            module.model.named_parameters(),
            settings.optimizer,
            total=STEPS,
            epochs=1.0,
            exempt=module.model.no_weight_decay(),
            matrices=module.model.hidden_matrices(),
            fused=module.fused,
        )

    def train(self) -> None:
        """Carry out one training step."""
        self._module.train()
        if hasattr(self._optimizer, "train"):
            self._optimizer.train()
        self._optimizer.zero_grad()
        for _ in range(self._trainer.accumulate):
            with self._precision.train_step_context():
                loss = self._module.loss(self._batch) / self._trainer.accumulate
            loss.backward()
        if self._trainer.clip:
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._trainer.clip)
        self._optimizer.step()

    def infer(self) -> Tensor:
        """Evaluate the model once on a batch, without gradients; a generator at one time of its path."""
        self._module.eval()
        with torch.inference_mode(), self._precision.val_step_context():
            if not isinstance(self._model, models.GenerativeTrunk):
                return self._module(self._input)
            moment = torch.full((len(self._input),), 0.5, device=self._device, dtype=self._input.dtype)
            return self._model(self._input, moment, self._batch["label"])

    def seconds(self, work: Callable[[], object]) -> float:
        """What `work` takes once, on a device that has nothing else to do."""
        self._synchronize()
        start = time.perf_counter()
        work()
        self._synchronize()
        return time.perf_counter() - start

    def median(self, work: Callable[[], object]) -> float:
        """Median of the repetitions that `SECONDS` have room for, after one that warms up."""
        work()
        samples = [self.seconds(work) for _ in range(LEAST)]
        end = time.perf_counter() + SECONDS - sum(samples)
        while time.perf_counter() < end and len(samples) < MOST:
            samples.append(self.seconds(work))
        return statistics.median(samples)

    def inference_bytes(self) -> int | None:
        """Weights, and the most that one evaluation takes beside them; None on devices that do not tell."""
        if self._device.type not in ("cpu", "cuda"):
            return None
        own = sum(tensor.nbytes for tensor in chain(self._model.parameters(), self._model.buffers()))
        return own + peak_bytes(self.infer, Target(self._device.type, "float32"))

    def _synchronize(self) -> None:
        if self._device.type != "cpu":
            torch.get_device_module(self._device).synchronize()


def measured(bench: StepBench, batch: int) -> dict[str, float]:
    """For `metrics.json`: `inference/memory_mb`, `inference/image_ms` and `train/step_ms`; takes about a second.

    Args:
        bench: of the run.
        batch: images of its batch.
    """
    held = bench.inference_bytes()
    memory = {} if held is None else {"inference/memory_mb": held / 1e6}
    return {
        **memory,
        "inference/image_ms": 1e3 * bench.median(bench.infer) / batch,
        "train/step_ms": 1e3 * bench.median(bench.train),
    }
