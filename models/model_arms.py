"""Whole models as arms of the benchmark."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import models
from models.presets import preset
from models.pyramid.spec import PyramidSpec
from models.spec import GenerativeSpec, IsotropicSpec
from models.ushape.spec import UDiTSpec
from operators.benchmark.arms import MixerArm
from operators.benchmark.workload import Shape, Target, Workload, noise

CLASSES = 1000
LATENT, COLOURS = 4, 3
"""Channels of the images: of a DiT's, and of a ViT's."""
KICK = 0.02
"""Standard normal numbers times this are added to all parameters: a DiT starts with gates that are shut."""


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

    def absent(self, shape: Shape, place: Target) -> str | None:
        return self.judged.absent(shape, place)

    def build(self, shape: Shape, place: Target) -> Workload:
        trunk, own = preset(self.model), dict(self.judged.params)
        generates = isinstance(trunk, GenerativeSpec)
        patch = trunk.patch if isinstance(trunk, PyramidSpec | IsotropicSpec | UDiTSpec) else 1
        size = (shape.height * patch, shape.width * patch)
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
