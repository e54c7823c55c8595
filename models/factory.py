"""The models by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from models import match as matching
from models import targets
from models.isotropic.dit import DiffusionTransformer
from models.spec import DiTSpec, MixerSpec, shaped
from models.trunk import Trunk
from models.isotropic.vit import VisionTransformer


def create(
    name: str,
    *,
    mixers: MixerSpec | Sequence[MixerSpec],
    image_size: tuple[int, int],
    in_channels: int,
    num_classes: int,
    seed: int = 0,
    **overrides: Any,
) -> Trunk:
    """Make the model `name`: a `VisionTransformer` for `vit_…`, a `DiffusionTransformer` for `dit_…`.

    Args:
        name: one of `names()`.
        mixers: the mixer of every block, or a pattern cycled over depth.
        image_size: nominal (height, width) in pixels.
        in_channels: channels of the images.
        num_classes: number of classes.
        seed: of the run; keys the initialisation.
        overrides: fields of `ViTSpec` or `DiTSpec` that differ from the preset's; None keeps the preset's. And `match`,
            a budget (see `models.match`) of parameters, MACs or state: it decides `hidden`, or the parameter that
            scales a mixer's state; where that is given, it has to meet the budget. A time is refused: a run measures.

    Raises:
        InputError: an unknown name or field (with the nearest), a value that cannot be, a budget that no width meets.
    """
    spec = shaped(name, overrides)
    match = overrides.pop("match", None)

    def build(hidden: int | None, mixers: MixerSpec | Sequence[MixerSpec] = mixers) -> Trunk:
        shape: dict[str, Any] = {"image_size": image_size, "in_channels": in_channels, "num_classes": num_classes}
        if isinstance(spec, DiTSpec):
            return DiffusionTransformer(replace(spec, hidden=hidden), mixers=mixers, seed=seed, **shape)
        return VisionTransformer(replace(spec, hidden=hidden), mixers=mixers, seed=seed, **shape)

    if match is None:
        return build(spec.hidden)
    budget, _ = targets.asked(targets.parse(match))
    if budget == targets.STATE:
        model = build(spec.hidden, matching.solve_state(match, mixers, lambda solved: build(spec.hidden, solved)))
    elif budget != targets.TIME and spec.hidden is None:
        model = build(matching.solve(match, build))
    else:
        model = build(spec.hidden)
    matching.verify(match, model)
    return model
