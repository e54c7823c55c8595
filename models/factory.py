"""The models by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from models.mixing import MixerSpec
from models.vit import VisionTransformer, ViTSpec
from operators.errors import check_choice, check_names

# The three sizes of DeiT (arXiv 2012.12877, table 1), and one for small images and small machines.
PRESETS = {
    "vit_nano": ViTSpec(dim=64, depth=4, patch=4),
    "vit_tiny": ViTSpec(dim=192, depth=12, patch=16, drop_path=0.1),
    "vit_small": ViTSpec(dim=384, depth=12, patch=16, drop_path=0.1),
    "vit_base": ViTSpec(dim=768, depth=12, patch=16, drop_path=0.1),
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
) -> VisionTransformer:
    """Make the model `name`.

    Args:
        name: one of `names()`.
        mixers: the mixer of every block, or a pattern cycled over depth.
        image_size: nominal (height, width) in pixels.
        in_channels: channels of the images.
        num_classes: number of logits.
        seed: of the run; keys the initialisation.
        overrides: fields of `ViTSpec` that differ from the preset's; None keeps the preset's.

    Raises:
        InputError: an unknown name or field (with the nearest), or a value that cannot be.
    """
    check_choice("model", name, PRESETS)
    check_names(f"model {name}", overrides, [field.name for field in fields(ViTSpec)])
    spec = replace(PRESETS[name], **{key: value for key, value in overrides.items() if value is not None})
    return VisionTransformer(
        spec, mixers=mixers, image_size=image_size, in_channels=in_channels, num_classes=num_classes, seed=seed
    )
