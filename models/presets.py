"""The models by name: data that needs no torch.

Those of `PRESETS` are trunks for any mixer. The published models of `models.published` are trunks, too, and know which
mixers their authors put there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from models.published import MODELS
from models.pyramid.spec import PyramidSpec
from models.spec import DiTSpec, StageMixers, TrunkSpec, ViTSpec
from models.ushape.spec import UDiTSpec
from operators.errors import InputError, check_choice, check_names

PRESETS: dict[str, TrunkSpec] = {
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
    # A U of three stages, for small images and small machines.
    "dit_u_nano": UDiTSpec(dim=48, depths=(1, 2, 1), patch=2),
    # Pyramids: one of the shape of VMamba, vHeat and GSPN for 224 pixels, and one for small images and small machines.
    "pyramid_nano": PyramidSpec(dim=32, widths=(1, 2, 4), depths=(1, 2, 1), patch=2),
    "pyramid_tiny": PyramidSpec(dim=96, widths=(1, 2, 4, 8), depths=(2, 2, 6, 2), drop_path=0.1),
    # The trunk of probes: a token a cell, an answer a cell, and nothing but the mixer that looks at other cells.
    "cells_nano": ViTSpec(dim=32, depth=2, patch=1, positions="none", pooling="none"),
}


def names() -> list[str]:
    """Names of all models: the trunks for any mixer, then the published models."""
    return [*PRESETS, *MODELS]


def preset(name: str) -> TrunkSpec:
    """The shape of the model `name`.

    Raises:
        InputError: an unknown name, with the nearest.
    """
    return PRESETS[name] if name in PRESETS else MODELS[check_choice("model", name, names())].spec


def published_mixers(name: str) -> StageMixers:
    """The mixers that the authors of the model `name` put there.

    Raises:
        InputError: the name is not of a published model.
    """
    if name in PRESETS:
        raise InputError(f"model={name} is a trunk for any mixer: mixer=published goes with {', '.join(MODELS)}")
    return MODELS[check_choice("model", name, MODELS)].mixers


def shaped(name: str, overrides: Mapping[str, Any]) -> TrunkSpec:
    """The model `name` with those of its fields that `overrides` gives; None keeps the preset's. `match` is left out.

    Raises:
        InputError: an unknown name or field (with the nearest), or a value that cannot be.
    """
    shape = preset(name)
    check_names(f"model {name}", overrides, [*(field.name for field in fields(shape)), "match"])
    return replace(shape, **{key: value for key, value in overrides.items() if key != "match" and value is not None})
