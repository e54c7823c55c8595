"""Trunks that do not know which mixer they hold.

Everything constructs in plain Python:

    pde = models.MixerSpec("pde_ssm")
    model = models.create("vit_nano", mixers=pde, image_size=(28, 28), in_channels=1, num_classes=10)
    logits = model(images)             # images (B, 1, H, W), logits (B, 10)

    model = models.create("pyramid_nano", mixers=pde, image_size=(28, 28), in_channels=1, num_classes=10)
    logits = model(images)             # three stages, 14 × 14, 7 × 7 and 4 × 4 tokens

    model = models.create("vmamba_t_s1l8", image_size=(224, 224), in_channels=3, num_classes=1000)  # its own mixers

    model = models.create("dit_nano", mixers=pde, image_size=(28, 28), in_channels=1, num_classes=10)
    output = model(x, time, label)     # x and output (B, 1, H, W), time (B,) in [0, 1], label (B,) in 0 … 10

    model = models.create("dit_u_nano", mixers=pde, image_size=(28, 28), in_channels=1, num_classes=10)
    output = model(x, time, label)     # the same on grids of 14 × 14, 7 × 7 and 14 × 14 tokens
"""

from typing import TYPE_CHECKING

from operators.runtime.lazy import attributes

if TYPE_CHECKING:
    from models.factory import create
    from models.initialisation import seeded
    from models.isotropic.dit import DiffusionTransformer
    from models.isotropic.generative import GenerativeTrunk
    from models.isotropic.vit import VisionTransformer
    from models.presets import names
    from models.pyramid.pyramid import Pyramid
    from models.pyramid.spec import PyramidSpec
    from models.spec import DiTSpec, MixerSpec, ModelCost, StageMixers, TrunkSpec, ViTSpec
    from models.trunk import Trunk
    from models.ushape.dit_u import UShapedDiffusionTransformer
    from models.ushape.spec import UDiTSpec

__all__ = [
    "DiTSpec",
    "DiffusionTransformer",
    "GenerativeTrunk",
    "MixerSpec",
    "ModelCost",
    "Pyramid",
    "PyramidSpec",
    "StageMixers",
    "Trunk",
    "TrunkSpec",
    "UDiTSpec",
    "UShapedDiffusionTransformer",
    "ViTSpec",
    "VisionTransformer",
    "create",
    "names",
    "seeded",
]

__getattr__ = attributes(
    __name__,
    {
        **dict.fromkeys(("DiTSpec", "MixerSpec", "ModelCost", "StageMixers", "TrunkSpec", "ViTSpec"), "models.spec"),
        "DiffusionTransformer": "models.isotropic.dit",
        "GenerativeTrunk": "models.isotropic.generative",
        "Pyramid": "models.pyramid.pyramid",
        "PyramidSpec": "models.pyramid.spec",
        "Trunk": "models.trunk",
        "UDiTSpec": "models.ushape.spec",
        "UShapedDiffusionTransformer": "models.ushape.dit_u",
        "VisionTransformer": "models.isotropic.vit",
        "create": "models.factory",
        "names": "models.presets",
        "seeded": "models.initialisation",
    },
)
