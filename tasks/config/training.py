"""What training may be told: the optimiser and its schedule, the loop, and where its curves go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from typing import Any

from operators.errors import InputError, check_choice, check_number
from tasks.config import bounds
from tasks.config.choices import ACCELERATORS, OPTIMIZERS, SCHEDULES, STRATEGIES

LOGGERS = {"tensorboard": None, "csv": None, "wandb": "wandb", "mlflow": "mlflow", "none": None}
"""What pip installs for each that needs a package of its own."""
_LOGGER_OPTIONS = {
    "project": ("wandb", "mlflow"), "offline": ("wandb",), "uri": ("mlflow",),
    "pictures": ("tensorboard", "wandb", "mlflow"),
}  # fmt: skip
"""Which loggers take an option that not all of them have."""
PRECISIONS = ("32-true", "64-true", "16-true", "bf16-true", "16-mixed", "bf16-mixed")


@dataclass(frozen=True)
class OptimizerConfig:
    """An optimiser and its schedule.

    Attributes:
        name: `adamw` (arXiv 1711.05101), `muon` (Jordan 2024, with AdamW for all but hidden matrices), `lion` (arXiv
            2302.06675), `lamb` (arXiv 1904.00962), `adafactor` (arXiv 1804.04235) or `schedule_free` (AdamW of arXiv
            2405.15682, whose schedule is `constant`).
        lr: peak learning rate.
        weight_decay: of what is decayed (see `tasks.optim.parameter_groups`).
        betas: decay of the first and second moment; adafactor has none.
        momentum: of muon's steps.
        warmup: steps of linear warm-up: below 1 as a share of all steps, from 1 on in epochs.
        schedule: `cosine`, `wsd` or `constant`, after the warm-up; see `tasks.optim.rate`.
        decay: steps of the decay at the end of `wsd`, counted as those of the warm-up.
        min_lr: where cosine and decay end, unless `lr` is lower still.
    """

    name: str = "adamw"
    lr: float = 2e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.95
    warmup: float = 0.05
    schedule: str = "cosine"
    decay: float = 0.2
    min_lr: float = 1e-6

    def __post_init__(self) -> None:
        check_choice("optimizer.name", self.name, OPTIMIZERS)
        check_number("optimizer.lr", self.lr, least=0)
        check_number("optimizer.weight_decay", self.weight_decay, least=0)
        if not isinstance(self.betas, (list, tuple)) or len(self.betas) != 2:
            raise InputError(f"optimizer.betas={self.betas!r} must be two numbers")
        for beta in self.betas:
            check_number("optimizer.betas", beta, least=0, most=0.999999)
        if self.name == "schedule_free" and not self.betas[0]:
            raise InputError("optimizer.betas[0]=0 leaves schedule_free without an average: it must be above 0")
        check_number("optimizer.momentum", self.momentum, least=0, most=0.999999)
        check_number("optimizer.decay", self.decay, least=0)
        check_number("optimizer.warmup", self.warmup, least=0)
        check_choice("optimizer.schedule", self.schedule, SCHEDULES)
        if self.name == "schedule_free" and self.schedule != "constant":
            raise InputError(
                f"optimizer.schedule={self.schedule} does not go with optimizer=schedule_free, which averages instead: "
                "optimizer.schedule=constant"
            )
        check_number("optimizer.min_lr", self.min_lr, least=0)


@dataclass(frozen=True)
class TrainerConfig:
    """How the training loop runs.

    Attributes:
        max_epochs, max_steps: where it stops, at whichever comes first; None = no such limit; optimiser steps.
        accelerator, devices, num_nodes, strategy, precision: as Lightning's `Trainer` takes them.
        compile: `torch.compile` the model.
        clip: largest norm of the gradient; 0 = off.
        ema: decay of the weight average that validation, test and checkpoints use; 0 = off.
        accumulate: batches per optimiser step.
        save_every: optimiser steps between saves of `last.ckpt`, besides those at validation; None = only those.
        patience: validations in a row without a better score after which training ends early; None never does.
        test: evaluate the best checkpoint on the test split at the end.
        costs: measure, after everything else, what a training step and the inference of an image take (`tasks.costs`).
        lightning: other arguments of `Trainer`.
    """

    max_epochs: int | None = 5
    max_steps: int | None = None
    accelerator: str = "auto"
    devices: int | str = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    compile: bool = False
    clip: float = 1.0
    ema: float = 0.0
    accumulate: int = 1
    save_every: int | None = None
    patience: int | None = None
    test: bool = True
    costs: bool = False
    lightning: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("max_epochs", "max_steps", "save_every", "patience"):
            if getattr(self, name) is not None:
                check_number(f"trainer.{name}", getattr(self, name), least=1, integer=True)
        if self.max_epochs is None and self.max_steps is None:
            raise InputError("trainer.max_epochs and trainer.max_steps cannot both be null: the run would never end")
        for name, value in self.lightning.items():
            bounds.check_lightning(name, value)
        self._check_limits()
        if self.devices != "auto":
            check_number("trainer.devices (or 'auto')", self.devices, least=1, integer=True)
        check_choice("trainer.accelerator", self.accelerator, ACCELERATORS)
        check_choice("trainer.strategy", self.strategy, STRATEGIES)
        check_choice("trainer.precision", self.precision, PRECISIONS)
        check_number("trainer.num_nodes", self.num_nodes, least=1, integer=True)
        check_number("trainer.clip", self.clip, least=0)
        check_number("trainer.ema", self.ema, least=0, most=0.999999)
        check_number("trainer.accumulate", self.accumulate, least=1, integer=True)
        for name in ("compile", "test", "costs"):
            check_choice(f"trainer.{name}", getattr(self, name), (True, False))
        if self.costs and (self.devices, self.num_nodes) != (1, 1):
            raise InputError(
                f"trainer.costs=true measures one device, not trainer.devices={self.devices} and "
                f"trainer.num_nodes={self.num_nodes}: give 1 of both, or trainer.costs=false"
            )

    def _check_limits(self) -> None:
        for least, most in (("min_epochs", "max_epochs"), ("min_steps", "max_steps")):
            low, high = self.lightning.get(least), getattr(self, most)
            if low is not None and high is not None and low > high:
                raise InputError(f"trainer.{least}={low} must be at most trainer.{most}={high}")


@dataclass(frozen=True)
class LoggerConfig:
    """Where curves go.

    Attributes:
        name: `tensorboard`, `csv`, `wandb`, `mlflow` or `none`.
        every: steps between points.
        project: with wandb and mlflow (which calls it an experiment): what the run belongs to.
        offline: with wandb: keep everything in the run directory, for `wandb sync`.
        pictures: epochs between pictures of the mixers, drawn at the end of their validation; 0 draws none.
        uri: with mlflow: the server or database; None takes `MLFLOW_TRACKING_URI`, or `mlflow.db` here.
    """

    name: str = "none"
    every: int = 20
    project: str = "operator-zoo"
    offline: bool = False
    uri: str | None = None
    pictures: int = 0

    def __post_init__(self) -> None:
        check_choice("logger.name", self.name, LOGGERS)
        check_number("logger.every", self.every, least=1, integer=True)
        check_choice("logger.offline", self.offline, (True, False))
        check_number("logger.pictures", self.pictures, least=0, integer=True)
        if not isinstance(self.project, str) or not self.project:
            raise InputError(f"logger.project={self.project!r} must be a name")
        if not isinstance(self.uri, str | None):
            raise InputError(f"logger.uri={self.uri!r} must be an address or null")
        for option in fields(self):
            takers = _LOGGER_OPTIONS.get(option.name, (self.name,))
            value = getattr(self, option.name)
            if self.name not in takers and value != option.default:
                listed = " or ".join(takers)
                raise InputError(f"logger.{option.name}={value} goes with logger={listed}, not with {self.name}")

    def check_installed(self) -> None:
        """Raise `InputError` where the logger needs a package that is not installed; nothing is imported for that."""
        package = LOGGERS[self.name]
        if package is not None and find_spec(self.name) is None:
            raise InputError(f"logger={self.name} needs a package that is not installed: pip install {package}")
        if self.pictures and find_spec("matplotlib") is None:
            raise InputError(
                f"logger.pictures={self.pictures} needs matplotlib, which is not installed: "
                "pip install 'operator-zoo[benchmark]'; or give logger.pictures=0"
            )
