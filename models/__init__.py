"""Trunks that do not know which mixer they hold.

Everything constructs in plain Python:

    pde = models.MixerSpec("pde_ssm")
    model = models.create("vit_nano", mixers=pde, image_size=(28, 28), in_channels=1, num_classes=10)
    logits = model(images)             # images (B, 1, H, W), logits (B, 10)

    model = models.create("dit_nano", mixers=pde, image_size=(28, 28), in_channels=1, num_classes=10)
    output = model(x, time, label)     # x and output (B, 1, H, W), time (B,) in [0, 1], label (B,) in 0 … 10
"""

from typing import TYPE_CHECKING

from operators.runtime.lazy import attributes

if TYPE_CHECKING:
    from models.isotropic.dit import DiffusionTransformer
    from models.factory import create
    from models.initialisation import seeded
    from models.spec import DiTSpec, MixerSpec, ModelCost, TrunkSpec, ViTSpec, names
    from models.trunk import Trunk
    from models.isotropic.vit import VisionTransformer

__all__ = [
    "DiTSpec",
    "DiffusionTransformer",
    "MixerSpec",
    "ModelCost",
    "Trunk",
    "TrunkSpec",
    "ViTSpec",
    "VisionTransformer",
    "create",
    "names",
    "seeded",
]

__getattr__ = attributes(
    __name__,
    {
        **dict.fromkeys(("DiTSpec", "MixerSpec", "TrunkSpec", "ViTSpec", "names"), "models.spec"),
        "DiffusionTransformer": "models.isotropic.dit",
        "ModelCost": "models.spec",
        "Trunk": "models.trunk",
        "VisionTransformer": "models.isotropic.vit",
        "create": "models.factory",
        "seeded": "models.initialisation",
    },
)
