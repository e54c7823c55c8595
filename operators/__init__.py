"""The operator zoo: interchangeable token mixers on an image grid.

mixer = operators.create("pde_ssm", 64, grid=(16, 16))
y = mixer(x)                       # x, y: (B, H, W, 64)
"""

from operators import pde
from operators.cost import Cost
from operators.errors import InputError
from operators.mixer import Core, Mixer
from operators.registry import MixerCard, Published, Site, create, describe, names, register
from operators.shell import BARE, COMMON, ShellSpec

__all__ = [
    "BARE",
    "COMMON",
    "Core",
    "Cost",
    "InputError",
    "Mixer",
    "MixerCard",
    "Published",
    "ShellSpec",
    "Site",
    "create",
    "describe",
    "names",
    "pde",
    "register",
]
