"""What is recorded of a published model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.spec import MixerSpec, StageMixers, TrunkSpec

TOP1 = "ImageNet-1k top-1 %, 224 px"


@dataclass(frozen=True)
class Deviation:
    """What the model here has more (or, negative, less) than the authors', and why.

    Attributes:
        parameters: in number.
        reason: in words.
        macs: for one image, in units of 10⁹.
    """

    parameters: int
    reason: str
    macs: float = 0.0


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """A published model: its trunk and its mixers here, and what its authors report.

    Attributes:
        title: its name in running text.
        spec: the trunk.
        mixers: of its blocks.
        source: paper, and the authors' repository and configuration.
        parameters: of the authors' model, counted to the last digit.
        deviations: between the model here and theirs; together they are all there is in parameters.
        macs: of the authors' model for one image, in units of 10⁹.
        macs_counted: whether `macs` were counted by running the authors' model; else they are as printed.
        score: what the authors report.
        measure: what `score` is.
        compared: how far outputs and input gradients are from those of the authors' module with copied weights; empty
            where the whole model was not compared (the mixers' cards say it of them).
        notes: in what else the model here differs from the authors'.
        image_size: (height, width) of what the model takes of an image.
        in_channels: of what it takes of an image.
        num_classes: that it tells apart.
    """

    title: str
    spec: TrunkSpec
    mixers: StageMixers
    source: str
    parameters: int
    deviations: tuple[Deviation, ...] = ()
    macs: float | None = None
    macs_counted: bool = False
    score: float | None = None
    measure: str = TOP1
    compared: str = ""
    notes: tuple[str, ...] = ()
    image_size: tuple[int, int] = (224, 224)
    in_channels: int = 3
    num_classes: int = 1000


def everywhere(
    name: str, stages: int = 1, *, shell: str | Mapping[str, Any] = "published", **params: Any
) -> StageMixers:
    """One mixer in all blocks of so many stages."""
    return StageMixers(((MixerSpec(name, params, shell),),) * stages)


def by_stage(*specs: MixerSpec | tuple[MixerSpec, ...]) -> StageMixers:
    """A mixer, or a pattern of them, for each stage."""
    return StageMixers(tuple(spec if isinstance(spec, tuple) else (spec,) for spec in specs))
