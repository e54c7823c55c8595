"""`python -m tasks.overhead [overrides of run.py]`: what our training step takes over a loop of bare PyTorch.

The bare loop has the same model, images, loss, optimiser, clipping and average, and nothing else: no Lightning, no
random numbers keyed by image, no scores, no curves. The two take turns, step by step, in one process.
"""

from __future__ import annotations

from operators.command_line import begin, conclude

if __name__ == "__main__":
    begin()  # before torch is imported

import sys
import tempfile
import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from operators.benchmark.measuring.statistics import quartiles
from operators.errors import InputError
from operators.runtime.torch_private import lerp_
from tasks.base import Batch
from tasks.config.composition import compose
from tasks.config.training import OptimizerConfig
from tasks.run.execute import execute
from tasks.system import failure, results

STEPS = 40
WARM = 5
"""Of these the first are left out."""
USAGE = """usage: python -m tasks.overhead [overrides of run.py]

What a training step takes over a loop of bare PyTorch. `python run.py --help` lists the overrides.
"""
PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16}


class Turns(Callback):
    """After each training step, a step of the bare loop.

    Attributes:
        ours, bare: seconds of the steps, loading included.
    """

    def __init__(self) -> None:
        self.ours: list[float] = []
        self.bare: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the model as it is, and make the loop's own loader and optimiser."""
        self._module = cast(Any, pl_module)
        self._model: nn.Module = deepcopy(self._module.model).train()
        self._average = [parameter.detach().clone() for parameter in self._model.parameters()]
        config: OptimizerConfig = self._module.optimizer_config
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(),
            lr=config.lr,
            betas=(config.betas[0], config.betas[1]),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._loader = trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
        self._batches = iter(self._loader)
        self._clip, self._type = trainer.gradient_clip_val, PRECISIONS[trainer.precision]
        self._ema = any(type(callback).__name__ == "Averaging" for callback in trainer.callbacks)  # type: ignore[attr-defined]
        self._since = self._now()

    def on_train_batch_end(self, *_: Any) -> None:
        """Time the step that Lightning has just ended, and the same step in a plain loop."""
        self.ours.append(self._now() - self._since)
        start = self._now()
        self._step()
        self._since = self._now()
        self.bare.append(self._since - start)

    def _now(self) -> float:
        if self._module.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _step(self) -> None:
        batch: Batch | None = next(self._batches, None)
        if batch is None:
            self._batches = iter(self._loader)
            batch = next(self._batches)
        device = self._module.device
        image, label = batch["image"].to(device, non_blocking=True), batch["label"].to(device, non_blocking=True)
        with torch.autocast(device.type, dtype=self._type, enabled=self._type is not None):
            loss = self._loss(image, label)
        self._optimizer.zero_grad()
        loss.backward()
        if self._clip:
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._clip)
        self._optimizer.step()
        if self._ema:
            lerp_(self._average, [parameter.detach() for parameter in self._model.parameters()], 1e-3)

    def _loss(self, image: Tensor, label: Tensor) -> Tensor:
        if self._module.task.name == "classification":
            return F.cross_entropy(self._model(image).float(), label, label_smoothing=self._module.task.label_smoothing)
        t, eps = torch.rand(len(image), device=image.device), torch.randn_like(image)
        at = t.view(-1, 1, 1, 1)
        return F.mse_loss(self._model((1 - at) * eps + at * image, t, label).float(), image - eps)


def measure(overrides: Sequence[str]) -> Turns:
    """Carry out `STEPS` steps of a run, unless the overrides say otherwise.

    Raises:
        InputError: a configuration that cannot be carried out, or that the bare loop does not know.
    """
    given = ["trainer.test=false", f"trainer.max_steps={STEPS}", "++trainer.limit_val_batches=1", *overrides]
    config: Any = compose(given)
    if config["trainer"]["precision"] not in PRECISIONS:
        raise InputError(
            f"trainer.precision={config['trainer']['precision']}: the bare loop has {', '.join(PRECISIONS)}"
        )
    if config["task"]["name"] == "probe":
        raise InputError("the bare loop learns images: task=probe has none")
    if config["trainer"]["compile"] or config["trainer"]["accumulate"] != 1 or config["trainer"]["devices"] != 1:
        raise InputError("the bare loop neither compiles nor accumulates, and has one device")
    augment = config["data"]["augment"]
    if augment["mixup"] or augment["cutmix"]:
        raise InputError("the bare loop does not mix images: set data.augment.mixup=0 and data.augment.cutmix=0")
    turns = Turns()
    with tempfile.TemporaryDirectory() as folder:
        execute(config, Path(folder) / "run", callbacks=[turns])
    return turns


def main(arguments: Sequence[str]) -> int:
    """Print medians and the median ratio of neighbouring steps; returns the exit status."""
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(USAGE)
        return 0
    try:
        turns = measure(arguments)
        pairs = list(zip(turns.ours, turns.bare, strict=True))[WARM:]
        if not pairs:
            raise InputError(f"trainer.max_steps must be more than {WARM}: the first {WARM} steps are left out")
    except Exception as error:  # noqa: BLE001 - `explain` tells wrong input from a bug
        status, text = failure.explain(error)
        results.say(text)
        return status
    lines = []
    for name, values in (("our step", [own for own, _ in pairs]), ("bare loop", [bare for _, bare in pairs])):
        low, middle, high = (1e3 * value for value in quartiles(values))
        lines.append(f"{name:10} {middle:8.1f} ms ({low:.1f}–{high:.1f})")
    low, middle, high = quartiles([own / bare for own, bare in pairs])
    lines.append(f"{'ratio':10} {middle:8.3f}    ({low:.3f}–{high:.3f}), {len(pairs)} pairs of steps")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    conclude(lambda: main(sys.argv[1:]))
