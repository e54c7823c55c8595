"""What a run may be told, as dataclasses. Everything outside a data set, a model and a mixer is validated here, in
`tasks.config.task` and in `tasks.config.training`.

Values of `data`, `model` and `mixer` are validated by those who take them (`tasks.data.create`, `models.create`,
`operators.create`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import models
from models.presets import shaped
from models.spec import GenerativeSpec, Mixers, MixerSpec, StageMixers, ViTSpec, listed
from operators import registry
from operators.errors import InputError, check_choice, check_names, check_number, nearest
from tasks.config import bounds, start
from tasks.config.choices import DATA_SETS, TRANSFERS
from tasks.config.images import Images
from tasks.config.layers import mixer_specs
from tasks.config.task import TASKS, GenerationConfig, ProbeConfig, SampleConfig, TaskConfig
from tasks.config.training import LoggerConfig, OptimizerConfig, TrainerConfig

if TYPE_CHECKING:
    from tasks.data import KeyedData
    from tasks.probes.probe import Probe

MODES = ("fit", "test", "sample", "plan")

T = TypeVar("T")


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
        mixers: one `MixerSpec`, the pattern of a hybrid, or a pattern for each stage.
        mixer, shell: the names they go by in `metrics.json`; of stages, all of them joined by `+`.
        model, data: name and parameters of `models.create` and `tasks.data.create`.
        seed: keys initialisation, data order, augmentation and drop path.
        mode: one of `MODES`.
        ckpt: checkpoint to continue (fit), to evaluate (test) or to draw from (sample).
        init: weights to start from, see `tasks.config.start`.
        transfer: how selective scans change their steps on larger grids, see `operators.transfer`; None: not at all.
        sample: how to draw samples; with generation, and only there.
        plan: with mode plan, and only there.
        probe: what is probed; with task probe, and only there.
        plain: all of it in plain containers, as `config.yaml` has it.
    """

    task: TaskConfig
    mixers: Mixers
    mixer: str
    shell: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    optimizer: OptimizerConfig
    trainer: TrainerConfig
    logger: LoggerConfig
    plain: Mapping[str, Any]
    seed: int = 0
    mode: str = "fit"
    ckpt: str | None = None
    init: str | None = None
    transfer: str | None = None
    sample: SampleConfig | None = None
    plan: PlanConfig | None = None
    probe: Probe | None = None

    def images(self, data: KeyedData) -> Images:
        """What the model has to know of `data`; of an autoencoder nothing but its configuration is read.

        Raises:
            InputError: see `tasks.autoencoder.input_shape`.
        """
        from tasks import autoencoder

        path = self.task.autoencoder if isinstance(self.task, GenerationConfig) else None
        return Images.of(data, autoencoder.input_shape(path, data.channels, *data.image_size))

    def build(self, images: Images, *, device: str = "cpu", **changed: Any) -> models.Trunk:
        """The model, with the weights that it starts from.

        Args:
            images: that it is made for.
            device: where its weights are; on `meta` they take no memory.
            changed: fields of the model that differ from the run's.

        Raises:
            InputError: a model that cannot be, or that is made for another task.
        """
        import torch

        from models.targets import unmeasured

        self.check_purpose()
        model = {**self.model, **changed}
        if unmeasured(model.get("match")):
            model["match"] = None  # as long as nobody has measured, the preset's width
        channels, height, width = images.input
        with bounds.overflow_refused(), torch.device(device):
            return models.create(
                **model,
                mixers=self.mixers,
                image_size=(height, width),
                in_channels=channels,
                num_classes=images.num_classes,
                seed=self.seed,
            )

    def check_purpose(self) -> None:
        """Raise `InputError` unless model and data are made for the task."""
        shape = shaped(self.model["name"], {key: value for key, value in self.model.items() if key != "name"})
        fitting = None
        pooled = not isinstance(shape, ViTSpec) or shape.pooling != "none"
        if isinstance(self.task, GenerationConfig):
            fitting = None if isinstance(shape, GenerativeSpec) else "dit_*"
        elif isinstance(shape, GenerativeSpec):
            fitting = "vit_* or pyramid_*"
        elif self.probe is not None and self.probe.per_cell and pooled:
            fitting = "cells_nano, or vit_* with model.pooling=none: it answers for each cell"
        elif not pooled and (self.probe is None or not self.probe.per_cell):
            fitting = "model.pooling=mean: it answers for each image"
        if fitting is not None:
            raise InputError(f"model={self.model['name']} is not made for task={self.task.name}: take {fitting}")
        if (self.data["name"] == "probe") != (self.probe is not None):
            other = "its own data, data=probe" if self.probe is not None else "images: leave out data=probe"
            raise InputError(f"task={self.task.name} takes {other}")

    def changed(self, key: str, value: Any) -> RunConfig:
        """The run with another value at its top-level `key`, which is not made of dataclasses."""
        return replace(self, plain={**self.plain, key: value}, **{key: value})

    def __post_init__(self) -> None:
        check_number("seed", self.seed, least=0, most=2**32 - 1, integer=True)
        for name in ("ckpt", "init"):
            if getattr(self, name) is not None:
                bounds.check_path(name, getattr(self, name))
        check_choice("mode", self.mode, MODES)
        if self.trainer.ema and self.optimizer.name == "schedule_free":
            raise InputError(
                f"trainer.ema={self.trainer.ema:g} does not go with optimizer=schedule_free, which averages the "
                "weights itself: give trainer.ema=0"
            )
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
        check_choice("transfer", self.transfer, (None, *TRANSFERS))
        if self.transfer is not None and (self.mode != "test" or self.sample is not None):
            raise InputError(
                f"transfer={self.transfer} goes with mode=test of a classifier, not with mode={self.mode}, "
                f"task={self.task.name}"
            )
        if self.init is not None and (self.ckpt is not None or self.mode != "fit"):
            raise InputError("init=PATH starts a new fit: it goes with neither ckpt=PATH nor another mode")


def parse(config: Mapping[str, Any]) -> RunConfig:
    """The run that a resolved configuration (plain containers, as `config.yaml`) asks for.

    Raises:
        InputError: an unknown name, or a value that cannot be.
    """
    nodes = ("task", "mixer", "shell", "model", "data", "optimizer", "trainer", "logger")
    bounds.check_values(config)
    words = ("seed", "mode", "ckpt", "init", "transfer")
    check_names("the configuration", config, [*nodes, "pde", "sample", "plan", "probe", *words])
    for name in (*nodes, *(name for name in ("pde", "sample", "plan", "probe") if name in config)):
        if not isinstance(config.get(name), Mapping):
            raise InputError(f"{name}={config.get(name)!r} must be a mapping: choose an option of the group")
    for name in ("task", "mixer", "shell", "model", "data"):
        if not isinstance(config[name].get("name"), str):
            raise InputError(f"{name}.name={config[name].get('name')!r} must be a name")
    task = _build(TASKS[check_choice("task", config["task"]["name"], TASKS)], "task", config["task"])
    if ("sample" in config) != isinstance(task, GenerationConfig):
        raise InputError("sample exists with task=generation, and only there")
    if ("probe" in config) != isinstance(task, ProbeConfig):
        raise InputError("probe exists with task=probe, and only there")
    trainer = dict(config["trainer"])
    own = {f.name for f in fields(TrainerConfig)} - {"lightning"}
    for name in trainer:
        if name not in own | bounds.LIGHTNING:
            names, further = ", ".join(sorted(own)), ", ".join(sorted(bounds.LIGHTNING))
            hint = nearest(name, own | bounds.LIGHTNING)
            raise InputError(f"trainer has no {name!r}: allowed are {names}; and of lightning.Trainer {further}{hint}")
    lightning = {key: trainer.pop(key) for key in list(trainer) if key in bounds.LIGHTNING}
    mixers = mixer_specs(config["mixer"], config["shell"], config.get("pde"))
    each = listed(mixers) if isinstance(mixers, StageMixers) else []
    return RunConfig(
        task=task,
        mixers=mixers,
        mixer="+".join(dict.fromkeys(spec.name for spec in each)) or config["mixer"]["name"],
        shell="+".join(dict.fromkeys(_shell_name(spec) for spec in each)) or config["shell"]["name"],
        model=config["model"],
        data=config["data"],
        optimizer=_build(OptimizerConfig, "optimizer", config["optimizer"]),
        trainer=_build(TrainerConfig, "trainer", trainer, lightning=lightning),
        logger=_build(LoggerConfig, "logger", config["logger"]),
        plain=config,
        sample=_build(SampleConfig, "sample", config["sample"]) if "sample" in config else None,
        plan=_build(PlanConfig, "plan", config["plan"]) if "plan" in config else None,
        probe=_probe(config["probe"]) if "probe" in config else None,
        **{key: config[key] for key in words if key in config},
    )


def check(run: RunConfig) -> None:
    """What can be said of a run before torch is imported.

    Raises:
        InputError: an unknown name or value of the model, the data or a mixer that is wrong whatever the images are; a
            file that is not there.
    """
    run.check_purpose()
    for spec in listed(run.mixers):
        registry.check(spec.name, spec.params, spec.shell, spec.backend)
    unread = {"root": None, "num_workers": 0} if run.mode == "plan" else {}  # a plan may be for another machine
    asked = {**run.data, **{key: value for key, value in unread.items() if key in run.data}}
    check_choice("data.name", asked.get("name"), DATA_SETS)
    several = isinstance(asked.get("resolution"), list | tuple)  # for mode=test
    bounds.check_data(
        **{key: asked[key] for key in bounds.DATA_NUMBERS if key in asked and not (several and key == "resolution")}
    )
    from tasks import data  # which brings numpy and Pillow, for which numbers and other words need not wait

    data.check(**asked)
    run.logger.check_installed()
    if run.init is not None:
        start.check(run.init, run.task)


def _probe(values: Mapping[str, Any]) -> Probe:
    from tasks.probes import registry as probes  # which brings numpy, for which other words need not wait

    if not isinstance(values.get("name"), str):
        raise InputError(f"probe.name={values.get('name')!r} must be a name")
    return probes.create(**values)


def _shell_name(spec: MixerSpec) -> str:
    return str(spec.shell.get("name", "common")) if isinstance(spec.shell, Mapping) else str(spec.shell)


def _build(cls: type[T], what: str, values: Mapping[str, Any], **more: Any) -> T:
    check_names(what, values, {f.name for f in fields(cls)} - set(more))  # type: ignore[arg-type]
    return cls(**values, **more)
