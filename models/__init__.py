"""Trunks that do not know which mixer they hold.

Everything constructs in plain Python:

    pde = models.MixerSpec("pde_ssm")
    model = models.create("vit_nano", mixers=pde, image_size=(28, 28), in_channels=1, num_classes=10)
    logits = model(images)             # images (B, 1, H, W), logits (B, 10)

    model = models.create("dit_nano", mixers=pde, image_size=(28, 28), in_channels=1, num_classes=10)
    output = model(x, time, label)     # x and output (B, 1, H, W), time (B,) in [0, 1], label (B,) in 0 … 10
"""

from models.cost import ModelCost
from models.dit import DiffusionTransformer, DiTSpec
from models.factory import create, names
from models.initialisation import seeded
from models.mixing import MixerSpec
from models.trunk import Trunk, TrunkSpec
from models.vit import VisionTransformer, ViTSpec

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
