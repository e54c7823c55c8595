"""`init=`: where a run's first weights come from, told apart by its words. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from operators.errors import InputError
from tasks.config.task import ClassificationConfig, GenerationConfig, TaskConfig

FILES = (".safetensors", ".pth", ".pt", ".bin")
"""Endings of files of weights that no run has written."""
PREDICTIONS = {"dit": ("noise", "vp"), "sit": ("velocity", "linear")}
"""What DiT's and SiT's weights predict, and on which path."""

_HUB_NAME = re.compile(r"[\w-]+(\.[\w-]+)*")


@dataclass(frozen=True)
class Start:
    """Where weights come from.

    Attributes:
        kind: `run` (a checkpoint of this program), `vit` (a file in timm's layout, or one that `tasks.export` wrote),
            `timm` (the same, on the Hugging Face Hub), `dit` or `sit` (a file in its authors' layout).
        name: a path, or of `timm` the name of a model.
        where: what it is called in messages.
    """

    kind: str
    name: str
    where: str


def parse(init: str) -> Start:
    """What `init=` means: `timm:NAME`, `dit:FILE`, `sit:FILE`, or a file."""
    kind, _, name = init.partition(":")
    if kind in ("timm", *PREDICTIONS) and name:
        return Start(kind, name, f"init={init}")
    return Start("vit" if init.endswith(FILES) else "run", init, f"init={init}")


def check(init: str, task: TaskConfig) -> None:
    """Refuse what cannot start such a task, whatever is in it.

    Raises:
        InputError: no such file, a name that is none, or a task that these weights were not made for.
    """
    start = parse(init)
    if start.kind == "timm":
        if not _HUB_NAME.fullmatch(start.name):
            raise InputError(
                f"init={init}: {start.name!r} is not the name of a model at huggingface.co/timm, such as "
                "deit_small_patch16_224.fb_in1k"
            )
    elif not Path(start.name).exists():
        raise InputError(f"{start.where} does not exist")
    if start.kind == "timm" and not isinstance(task, ClassificationConfig):
        raise InputError(f"init={init} starts a classifier, and this is task={task.name}: take dit:FILE or sit:FILE")
    if start.kind not in PREDICTIONS:
        return
    if not isinstance(task, GenerationConfig):
        raise InputError(f"init={init} starts a generator, and this is task={task.name}: give task=generation")
    prediction, path = PREDICTIONS[start.kind]
    if (task.prediction, task.path) != (prediction, path):
        raise InputError(
            f"init={init}: these weights predict the {prediction} on the path {path}, not the {task.prediction} on "
            f"{task.path}: give task.prediction={prediction} task.path={path}"
        )
