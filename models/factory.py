"""The models by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from models import match as matching
from models import targets
from models.isotropic.dit import DiffusionTransformer
from models.isotropic.vit import VisionTransformer
from models.presets import published_mixers, shaped
from models.pyramid.pyramid import Pyramid
from models.pyramid.spec import PyramidSpec
from models.spec import DiTSpec, Mixers, ViTSpec, like, listed
from models.trunk import Trunk
from models.ushape.dit_u import UShapedDiffusionTransformer
from models.ushape.spec import UDiTSpec


def create(
    name: str,
    *,
    mixers: Mixers | None = None,
    image_size: tuple[int, int],
    in_channels: int,
    num_classes: int,
    seed: int = 0,
    **overrides: Any,
) -> Trunk:
    """Make the model `name`: a `VisionTransformer`, a `Pyramid`, or a generator.

    Generators are a `DiffusionTransformer` or a `UShapedDiffusionTransformer`.

    Args:
        name: one of `names()`.
        mixers: the mixer of every block, a pattern cycled over depth, or a pattern for each stage of a trunk that has
            several. None means the authors' own, for published models.
        image_size: nominal (height, width) in pixels.
        in_channels: channels of the images.
        num_classes: number of classes.
        seed: of the run; keys the initialisation.
        overrides: fields of the preset's shape (a `ViTSpec`, `PyramidSpec`, `DiTSpec` or `UDiTSpec`) that differ; None
            keeps the preset's. And `match`, a budget (see `models.match`) of parameters, MACs or state: it decides
            `hidden`, or the parameter that scales a mixer's state; where that is given, it has to meet the budget. A
            time is refused: a run measures.

    Raises:
        InputError: an unknown name or field (with the nearest), a value that cannot be, a budget that no width meets.
    """
    spec = shaped(name, overrides)
    mixers = published_mixers(name) if mixers is None else mixers
    match = overrides.pop("match", None)

    def build(hidden: int | None, mixers: Mixers = mixers) -> Trunk:
        shape: dict[str, Any] = {"image_size": image_size, "in_channels": in_channels, "num_classes": num_classes}
        wide = replace(spec, hidden=hidden)
        if isinstance(wide, DiTSpec):
            return DiffusionTransformer(wide, mixers=mixers, seed=seed, **shape)
        if isinstance(wide, UDiTSpec):
            return UShapedDiffusionTransformer(wide, mixers=mixers, seed=seed, **shape)
        if isinstance(wide, PyramidSpec):
            return Pyramid(wide, mixers=mixers, seed=seed, **shape)
        assert isinstance(wide, ViTSpec)
        return VisionTransformer(wide, mixers=mixers, seed=seed, **shape)

    if match is None:
        return build(spec.hidden)
    budget, _ = targets.asked(targets.parse(match))
    if budget == targets.STATE:
        solved = matching.solve_state(match, listed(mixers), lambda specs: build(spec.hidden, like(mixers, specs)))
        model = build(spec.hidden, like(mixers, solved))
    elif budget != targets.TIME and spec.hidden is None:
        model = build(matching.solve(match, build))
    else:
        model = build(spec.hidden)
    matching.verify(match, model)
    return model
