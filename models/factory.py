"""The models by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from models import match as matching
from models.dit import DiffusionTransformer, DiTSpec
from models.mixing import MixerSpec
from models.trunk import Trunk
from models.vit import VisionTransformer, ViTSpec
from operators.errors import check_choice, check_names

PRESETS: dict[str, ViTSpec | DiTSpec] = {
    # The three sizes of DeiT (arXiv 2012.12877, table 1), and one for small images and small machines.
    "vit_nano": ViTSpec(dim=64, depth=4, patch=4),
    "vit_tiny": ViTSpec(dim=192, depth=12, patch=16, drop_path=0.1),
    "vit_small": ViTSpec(dim=384, depth=12, patch=16, drop_path=0.1),
    "vit_base": ViTSpec(dim=768, depth=12, patch=16, drop_path=0.1),
    # The four sizes of DiT (arXiv 2212.09748, table 1), and one for small images and small machines. Attention's heads
    # are 64 wide by default, as in DiT-S, B and L; for the paper's 16 heads of 72 in DiT-XL give it heads=16.
    "dit_nano": DiTSpec(dim=96, depth=4, patch=4),
    "dit_s": DiTSpec(dim=384, depth=12),
    "dit_b": DiTSpec(dim=768, depth=12),
    "dit_l": DiTSpec(dim=1024, depth=24),
    "dit_xl": DiTSpec(dim=1152, depth=28),
}


def names() -> list[str]:
    """Names of all models."""
    return list(PRESETS)


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
            a budget (see `models.match`): without `hidden` it decides that width, with it the width has to meet it.

    Raises:
        InputError: an unknown name or field (with the nearest), a value that cannot be, a budget that no width meets.
    """
    check_choice("model", name, PRESETS)
    preset = PRESETS[name]
    check_names(f"model {name}", overrides, [*(field.name for field in fields(preset)), "match"])
    match = overrides.pop("match", None)
    spec = replace(preset, **{key: value for key, value in overrides.items() if value is not None})

    def build(hidden: int | None) -> Trunk:
        shape: dict[str, Any] = {"image_size": image_size, "in_channels": in_channels, "num_classes": num_classes}
        if isinstance(spec, DiTSpec):
            return DiffusionTransformer(replace(spec, hidden=hidden), mixers=mixers, seed=seed, **shape)
        return VisionTransformer(replace(spec, hidden=hidden), mixers=mixers, seed=seed, **shape)

    if match is None:
        return build(spec.hidden)
    model = build(matching.solve(match, build).hidden if spec.hidden is None else spec.hidden)
    matching.verify(match, model)
    return model
