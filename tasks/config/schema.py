"""What a run may be told, as dataclasses. Everything outside a data set, a model and a mixer is validated here.

Values of `data`, `model` and `mixer` are validated by those who take them (`tasks.data.create`, `models.create`,
`operators.create`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import models
import tasks.data
from models.spec import MixerSpec, ViTSpec, shaped
from operators import registry
from operators.errors import InputError, check_choice, check_names, check_number, nearest
from tasks.config import bounds
from tasks.config.choices import (
    ACCELERATORS,
    DISTRIBUTIONS,
    NETWORKS,
    PATHS,
    PREDICTIONS,
    SOLVERS,
    STRATEGIES,
)
from tasks.config.overrides import PDE_MIXER

MODES = ("fit", "test", "sample", "plan")
PRECISIONS = ("32-true", "64-true", "16-true", "bf16-true", "16-mixed", "bf16-mixed")

MOST_STEPS, MOST_GUIDANCE = 10_000, 1000
"""Of a solver, whose error no longer falls there, and of classifier-free guidance, which leaves float32 beyond."""

T = TypeVar("T")


@dataclass(frozen=True)
class ClassificationConfig:
    """Classification.

    Attributes:
        label_smoothing: share of a training target that is spread over all classes.
    """

    name: str = "classification"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_number("task.label_smoothing", self.label_smoothing, least=0, most=0.99)


@dataclass(frozen=True)
class GenerationConfig:
    """Generation by flow matching; see `tasks.flow`.

    Attributes:
        path: between noise and data: `linear`, `gvp` or `vp`.
        prediction: what the model predicts: `velocity`, `data` or `noise`.
        times: training times: `uniform` or `logit_normal`, with `time_mean` and `time_std`.
        class_dropout: probability of training on the null class.
        bins: intervals of time in which the loss is reported.
        network: feature network of the distances (`tasks.measures.networks`); `auto` takes EfficientNet-Lite0 if it is
            installed and none otherwise, None takes none.
        weights: file of that network's weights; None where it has them from.
        judge: whether a classifier (`tasks.measures.judge`) measures the samples' class accuracy; not of photographs.
        autoencoder: in whose latents to work (`tasks.autoencoder.load`); None works on pixels.
    """

    name: str = "generation"
    path: str = "linear"
    prediction: str = "velocity"
    times: str = "uniform"
    time_mean: float = 0.0
    time_std: float = 1.0
    class_dropout: float = 0.1
    bins: int = 5
    network: str | None = "auto"
    weights: str | None = None
    judge: bool = True
    autoencoder: str | None = None

    def __post_init__(self) -> None:
        check_choice("task.path", self.path, PATHS)
        check_choice("task.prediction", self.prediction, PREDICTIONS)
        check_choice("task.times", self.times, DISTRIBUTIONS)
        check_number("task.time_mean", self.time_mean)
        check_number("task.time_std", self.time_std, least=1e-6)
        check_number("task.class_dropout", self.class_dropout, least=0, most=1)
        check_number("task.bins", self.bins, least=1, most=100, integer=True)
        if self.network is not None:
            check_choice("task.network (or null)", self.network, ("auto", *NETWORKS))
        check_choice("task.judge", self.judge, (True, False))
        if not isinstance(self.autoencoder, str | None):
            raise InputError(f"task.autoencoder={self.autoencoder!r} must be a folder, a Hub id, random or null")

    def check_network(self) -> None:
        """Raise `InputError` if the network that is asked for cannot be used: before a run rather than at its end."""
        if self.network not in (None, "auto") and self.weights is None:
            from tasks.measures import networks

            reason = networks.availability()[str(self.network)]
            if reason is not None:
                raise InputError(f"task.network={self.network}: {reason}")


@dataclass(frozen=True)
class SampleConfig:
    """Samples of a generator. Sample i is of class `classes[i % len(classes)]`, and its noise depends on seed and i.

    Attributes:
        n: how many.
        classes: numbers of the classes; None for all.
        guidance: weight of classifier-free guidance; 1 = none, 0 = unconditional.
        interval: first and last time at which it acts; 0 is noise, 1 data.
        steps: of the solver.
        solver: `euler`, `heun` or `dopri5`.
        batch_size: samples drawn at once, per device; does not change them.
        every: epochs between sheets of samples in the log; 0 = none.
    """

    n: int = 1000
    classes: Sequence[int] | None = None
    guidance: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    steps: int = 10
    solver: str = "heun"
    batch_size: int = 250
    every: int = 3

    def __post_init__(self) -> None:
        for name, least, most in (
            ("n", 1, None),
            ("steps", 1, MOST_STEPS),
            ("batch_size", 1, None),
            ("every", 0, None),
        ):
            check_number(f"sample.{name}", getattr(self, name), least=least, most=most, integer=True)
        if self.classes is not None:
            if isinstance(self.classes, str) or not isinstance(self.classes, Sequence) or not self.classes:
                raise InputError(f"sample.classes={self.classes!r} must be a list of class numbers, or null for all")
            for number in self.classes:
                check_number("sample.classes", number, least=0, integer=True)
        check_number("sample.guidance", self.guidance, least=0, most=MOST_GUIDANCE)
        if isinstance(self.interval, str) or not isinstance(self.interval, Sequence) or len(self.interval) != 2:
            raise InputError(f"sample.interval={self.interval!r} must be two times [first, last]")
        for time in self.interval:
            check_number("sample.interval", time, least=0, most=1)
        if self.interval[0] > self.interval[1]:
            raise InputError(f"sample.interval={list(self.interval)!r} must rise: first <= last")
        check_choice("sample.solver", self.solver, SOLVERS)

    def chosen(self, num_classes: int) -> list[int]:
        """The classes to draw, of `num_classes`.

        Raises:
            InputError: a class that does not exist.
        """
        if self.classes is None:
            return list(range(num_classes))
        for number in self.classes:
            check_number("sample.classes", number, least=0, most=num_classes - 1, integer=True)
        return list(self.classes)


TaskConfig = ClassificationConfig | GenerationConfig
TASKS: dict[str, type[ClassificationConfig] | type[GenerationConfig]] = {
    "classification": ClassificationConfig,
    "generation": GenerationConfig,
}


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (arXiv 1711.05101) and its schedule.

    Attributes:
        lr: peak learning rate.
        weight_decay: of what is decayed (see `tasks.optim.parameter_groups`).
        betas: decay of the first and second moment.
        warmup: steps of linear warm-up: below 1 as a share of all steps, from 1 on in epochs.
        schedule: `cosine` or `constant`, after the warm-up.
        min_lr: where the cosine ends, unless `lr` is lower still.
    """

    name: str = "adamw"
    lr: float = 2e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: float = 0.05
    schedule: str = "cosine"
    min_lr: float = 1e-6

    def __post_init__(self) -> None:
        check_choice("optimizer.name", self.name, ("adamw",))
        check_number("optimizer.lr", self.lr, least=0)
        check_number("optimizer.weight_decay", self.weight_decay, least=0)
        if not isinstance(self.betas, (list, tuple)) or len(self.betas) != 2:
            raise InputError(f"optimizer.betas={self.betas!r} must be two numbers")
        for beta in self.betas:
            check_number("optimizer.betas", beta, least=0, most=0.999999)
        check_number("optimizer.warmup", self.warmup, least=0)
        check_choice("optimizer.schedule", self.schedule, ("cosine", "constant"))
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
        test: evaluate the best checkpoint on the test split at the end.
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
    test: bool = True
    lightning: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("max_epochs", "max_steps", "save_every"):
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
        for name in ("compile", "test"):
            check_choice(f"trainer.{name}", getattr(self, name), (True, False))

    def _check_limits(self) -> None:
        for least, most in (("min_epochs", "max_epochs"), ("min_steps", "max_steps")):
            low, high = self.lightning.get(least), getattr(self, most)
            if low is not None and high is not None and low > high:
                raise InputError(f"trainer.{least}={low} must be at most trainer.{most}={high}")


@dataclass(frozen=True)
class LoggerConfig:
    """Where curves go: `tensorboard`, `csv` or `none`; `every` is the number of steps between points."""

    name: str = "none"
    every: int = 20

    def __post_init__(self) -> None:
        check_choice("logger.name", self.name, ("tensorboard", "csv", "none"))
        check_number("logger.every", self.every, least=1, integer=True)


@dataclass(frozen=True)
class PlanConfig:
    """What mode=plan may be told of a device that is not here; None measures the machine's own.

    Attributes:
        peak_tflops: 10^12 floating-point operations a second, in the run's precision.
        bandwidth: of its memory, in GB/s.
    """

    peak_tflops: float | None = None
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        for name in ("peak_tflops", "bandwidth"):
            if getattr(self, name) is not None:
                check_number(f"plan.{name}", getattr(self, name), least=1e-6, most=1e9)


@dataclass(frozen=True)
class RunConfig:
    """One run.

    Attributes:
        mixers: one `MixerSpec`, or the pattern of a hybrid.
        mixer, shell: the names they go by in `metrics.json`.
        model, data: name and parameters of `models.create` and `tasks.data.create`.
        seed: keys initialisation, data order, augmentation and drop path.
        mode: one of `MODES`.
        ckpt: checkpoint to continue (fit), to evaluate (test) or to draw from (sample).
        init: checkpoint whose weights to start from.
        sample: how to draw samples; with generation, and only there.
        plan: with mode plan, and only there.
    """

    task: TaskConfig
    mixers: MixerSpec | list[MixerSpec]
    mixer: str
    shell: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    optimizer: OptimizerConfig
    trainer: TrainerConfig
    logger: LoggerConfig
    seed: int = 0
    mode: str = "fit"
    ckpt: str | None = None
    init: str | None = None
    sample: SampleConfig | None = None
    plan: PlanConfig | None = None

    def input_shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """Shape (C, H, W) of what the model takes of images of that shape: themselves, or their latents.

        Raises:
            InputError: see `tasks.autoencoder.input_shape`.
        """
        from tasks import autoencoder

        path = self.task.autoencoder if isinstance(self.task, GenerationConfig) else None
        return autoencoder.input_shape(path, channels, height, width)

    def __post_init__(self) -> None:
        check_number("seed", self.seed, least=0, most=2**32 - 1, integer=True)
        for name in ("ckpt", "init"):
            if getattr(self, name) is not None:
                bounds.check_path(name, getattr(self, name))
        check_choice("mode", self.mode, MODES)
        if self.mode == "plan" and self.ckpt is not None:
            raise InputError("mode=plan builds no weights and takes no ckpt: leave it out")
        if (self.plan is None) == (self.mode == "plan"):
            raise InputError("plan exists with mode=plan, and only there")
        several = self.data.get("resolution")
        if isinstance(several, list | tuple) and (self.mode != "test" or self.sample is not None):
            raise InputError(
                f"data.resolution={list(several)!r}: several resolutions go with mode=test of a classifier, not with "
                f"mode={self.mode}, task={self.task.name}"
            )
        if self.mode in ("test", "sample") and self.ckpt is None:
            purpose = {"test": "evaluate", "sample": "draw from"}[self.mode]
            raise InputError(f"mode={self.mode} needs ckpt=PATH, the checkpoint to {purpose}")
        if self.mode == "sample" and self.sample is None:
            raise InputError("mode=sample draws from a generator: this is task=classification")
        if self.sample is not None and self.sample.classes is not None and self.mode != "sample":
            raise InputError(f"sample.classes goes with mode=sample: mode={self.mode} measures all classes")
        if self.init is not None and (self.ckpt is not None or self.mode != "fit"):
            raise InputError("init=PATH starts a new fit: it goes with neither ckpt=PATH nor another mode")


def parse(config: Mapping[str, Any]) -> RunConfig:
    """The run that a resolved configuration (plain containers, as `config.yaml`) asks for.

    Raises:
        InputError: an unknown name, or a value that cannot be.
    """
    nodes = ("task", "mixer", "shell", "model", "data", "optimizer", "trainer", "logger")
    bounds.check_values(config)
    check_names("the configuration", config, [*nodes, "pde", "sample", "plan", "seed", "mode", "ckpt", "init"])
    for name in (*nodes, *(name for name in ("pde", "sample", "plan") if name in config)):
        if not isinstance(config.get(name), Mapping):
            raise InputError(f"{name}={config.get(name)!r} must be a mapping: choose an option of the group")
    for name in ("task", "mixer", "shell", "model", "data"):
        if not isinstance(config[name].get("name"), str):
            raise InputError(f"{name}.name={config[name].get('name')!r} must be a name")
    task = _build(TASKS[check_choice("task", config["task"]["name"], TASKS)], "task", config["task"])
    if ("sample" in config) != isinstance(task, GenerationConfig):
        raise InputError("sample exists with task=generation, and only there")
    trainer = dict(config["trainer"])
    own = {f.name for f in fields(TrainerConfig)} - {"lightning"}
    for name in trainer:
        if name not in own | bounds.LIGHTNING:
            listed, further = ", ".join(sorted(own)), ", ".join(sorted(bounds.LIGHTNING))
            hint = nearest(name, own | bounds.LIGHTNING)
            raise InputError(f"trainer has no {name!r}: allowed are {listed}; and of lightning.Trainer {further}{hint}")
    lightning = {key: trainer.pop(key) for key in list(trainer) if key in bounds.LIGHTNING}
    return RunConfig(
        task=task,
        mixers=mixer_specs(config["mixer"], config["shell"], config.get("pde")),
        mixer=config["mixer"]["name"],
        shell=config["shell"]["name"],
        model=config["model"],
        data=config["data"],
        optimizer=_build(OptimizerConfig, "optimizer", config["optimizer"]),
        trainer=_build(TrainerConfig, "trainer", trainer, lightning=lightning),
        logger=_build(LoggerConfig, "logger", config["logger"]),
        sample=_build(SampleConfig, "sample", config["sample"]) if "sample" in config else None,
        plan=_build(PlanConfig, "plan", config["plan"]) if "plan" in config else None,
        **{key: config[key] for key in ("seed", "mode", "ckpt", "init") if key in config},
    )


def check(config: Mapping[str, Any]) -> None:
    """What can be said of a configuration before torch is imported.

    Raises:
        InputError: as `parse`; an unknown name or value of the model, the data or a mixer that is wrong whatever the
            images are; a file that is not there.
    """
    run = parse(config)
    shape = shaped(run.model["name"], {key: value for key, value in run.model.items() if key != "name"})
    if isinstance(shape, ViTSpec) != isinstance(run.task, ClassificationConfig):
        raise InputError(_misfit(run))
    for spec in [run.mixers] if isinstance(run.mixers, MixerSpec) else run.mixers:
        registry.check(spec.name, spec.params, spec.shell, spec.backend)
    tasks.data.check(**run.data)
    if run.init is not None and not Path(run.init).exists():
        raise InputError(f"init={run.init} does not exist")


def check_model(run: RunConfig, model: models.Trunk) -> None:
    """Raise `InputError` unless the model is made for the task."""
    classifies = isinstance(run.task, ClassificationConfig)
    if not isinstance(model, models.VisionTransformer if classifies else models.DiffusionTransformer):
        raise InputError(_misfit(run))


def _misfit(run: RunConfig) -> str:
    fitting = "vit_*" if isinstance(run.task, ClassificationConfig) else "dit_*"
    return f"model={run.model['name']} is not made for task={run.task.name}: take {fitting}"


def mixer_specs(
    mixer: Mapping[str, Any], shell: Mapping[str, Any], pde: Mapping[str, Any] | None
) -> MixerSpec | list[MixerSpec]:
    """The mixer of every layer, or of a hybrid (`mixer.pattern`) the pattern of them.

    Args:
        mixer: `{"name", "backend" (optional), …parameters}`, or
            `{"name", "backend" (optional), "pattern", "params": {NAME: parameters}}`.
        shell: preset's `name` and switches; serves every layer.
        pde: parameters of the PDE layers, which exists if and only if there are any.

    Raises:
        InputError: a pattern that is none, or parameters for a mixer that is not in it.
    """
    params = dict(mixer)
    name = params.pop("name")
    if "pattern" not in params:
        return _spec(name, params, shell, pde)
    check_names("mixer", params, ["backend", "pattern", "params"])
    pattern, each = params["pattern"], params.get("params") or {}
    if not isinstance(pattern, (list, tuple)) or not pattern or not all(isinstance(entry, str) for entry in pattern):
        raise InputError(f"mixer.pattern={pattern!r} must be a list of mixers, such as [{PDE_MIXER},attention]")
    if not isinstance(each, Mapping):
        raise InputError(f"mixer.params={each!r} must hold the parameters of each mixer: mixer.params.NAME.KEY=VALUE")
    check_names("mixer.params", each, pattern)
    for entry, values in each.items():
        if not isinstance(values, Mapping):
            raise InputError(f"mixer.params.{entry}={values!r} must be a mapping: mixer.params.{entry}.KEY=VALUE")
    if pde is not None and PDE_MIXER not in pattern:
        raise InputError(f"pde exists only with mixer={PDE_MIXER} or a hybrid that contains it")
    common = {"backend": params.get("backend", "auto")}
    return [_spec(entry, {**common, **each.get(entry, {})}, shell, pde) for entry in pattern]


def _spec(name: str, params: dict[str, Any], shell: Mapping[str, Any], pde: Mapping[str, Any] | None) -> MixerSpec:
    backend = params.pop("backend", "auto")
    if name == PDE_MIXER and pde is not None:
        for key in params:
            if key in pde:
                raise InputError(f"{key} of {PDE_MIXER} is set by pde.{key}")
        params |= pde
    return MixerSpec(name=name, params=params, shell=dict(shell), backend=backend)


def _build(cls: type[T], what: str, values: Mapping[str, Any], **more: Any) -> T:
    check_names(what, values, {f.name for f in fields(cls)} - set(more))  # type: ignore[arg-type]
    return cls(**values, **more)
