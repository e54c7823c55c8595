"""`python -m models.benchmark --model NAME [options of operators.benchmark]`: whole models with one mixer or another.

Forward is one evaluation without gradients, of which a sampler makes one or two in every step; forward+backward is a
training step without its optimiser, which does not depend on the mixer. Grids are in tokens: 16, 32 and 64 are latents
of 256, 512 and 1,024 pixels at the usual eighth, in patches of two.
"""

from __future__ import annotations

from operators.idle import limit_spinning

if __name__ == "__main__":
    limit_spinning()  # before torch is imported

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

import models
from models.spec import PRESETS
from operators.benchmark import __main__ as command
from operators.benchmark.arms import MixerArm
from operators.benchmark.bench import Plan
from operators.benchmark.table import PACKAGE
from operators.benchmark.workload import Place, Shape, Workload, noise
from operators.errors import InputError, check_choice

CLASSES = 1000
LATENT, COLOURS = 4, 3
"""Channels of the images: of a DiT's, and of a ViT's."""
KICK = 0.02
"""Standard normal numbers times this are added to all parameters: a DiT starts with gates that are shut."""
REFUSED = ("--level", "--dim", "--bare", "--rivals")
"""Options of `operators.benchmark` that mean nothing here."""


@dataclass(frozen=True)
class ModelArm:
    """A model with a mixer.

    Attributes:
        model: a preset's name.
        judged: the mixer in all its blocks.
    """

    model: str
    judged: MixerArm

    @property
    def label(self) -> str:
        return self.judged.label

    @property
    def kind(self) -> str:
        return "mixer"

    def absent(self, shape: Shape, place: Place) -> str | None:
        return self.judged.absent(shape, place)

    def build(self, shape: Shape, place: Place) -> Workload:
        preset, own = PRESETS[self.model], dict(self.judged.params)
        generates = self.model.startswith("dit")
        size = (shape.height * preset.patch, shape.width * preset.patch)
        channels = LATENT if generates else COLOURS
        spec = models.MixerSpec(
            self.judged.name, backend=own.pop("backend", "auto"), shell=own.pop("shell", "common"), params=own
        )
        model = models.create(self.model, mixers=spec, image_size=size, in_channels=channels, num_classes=CLASSES).to(
            place.device
        )
        generator = torch.Generator(place.device).manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                draw = torch.randn(parameter.shape, generator=generator, device=place.device)
                parameter.add_(KICK * draw)
        given: tuple[Tensor, ...] = (noise(shape.batch, channels, *size, device=place.device, seed=2),)
        if generates:
            numbers = torch.arange(shape.batch, device=place.device)
            given = (*given, (numbers + 0.5) / shape.batch, numbers % CLASSES)
        return Workload(
            lambda: model(*given),
            (),
            tuple(parameter for parameter in model.parameters() if parameter.requires_grad),
            shape.batch * model.cost(*size).macs,
            model.backend,
            (*given, *model.buffers()),
            asked=lambda: model.backend,
        )


def parse(argv: Sequence[str]) -> Plan:
    """The plan that a command line asks for.

    Raises:
        InputError: anything wrong with it, in one line.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--model")
    chosen, rest = parser.parse_known_args(argv)
    if chosen.model is None:
        raise InputError(f"--model is missing; allowed are {', '.join(PRESETS)}")
    preset = PRESETS[check_choice("model", chosen.model, PRESETS)]
    for option in rest:
        if option.partition("=")[0] in REFUSED:
            raise InputError(f"{option}: not an option of this benchmark, whose arms are whole models")
    plan = command.parse([*rest, "--level", "mixer", "--dim", str(preset.dim), "--rivals", "none"])
    arms = [ModelArm(chosen.model, arm) for arm in plan.arms if isinstance(arm, MixerArm)]
    return replace(plan, arms=arms, level=chosen.model, packages=(PACKAGE, Path(models.__file__).parent))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit statuses as those of `operators.benchmark`."""
    given = sys.argv[1:] if argv is None else argv
    return command.run(lambda: parse(given), Console(markup=False, highlight=False, stderr=True))


if __name__ == "__main__":
    sys.exit(main())
