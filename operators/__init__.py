"""The operator zoo: interchangeable token mixers on an image grid.

mixer = operators.create("pde_ssm", 64, grid=(16, 16))
y = mixer(x)                       # x, y: (B, H, W, 64)
"""

from typing import TYPE_CHECKING

from operators.errors import InputError
from operators.runtime.lazy import attributes

if TYPE_CHECKING:
    from operators import pde
    from operators.card import MixerCard, Published, Site
    from operators.cost import Cost
    from operators.mixer import Core, Mixer
    from operators.registry import create, describe, names, register
    from operators.shell.spec import BARE, COMMON, ShellSpec

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

__getattr__ = attributes(
    __name__,
    {
        **dict.fromkeys(("MixerCard", "Published", "Site"), "operators.card"),
        **dict.fromkeys(("create", "describe", "names", "register"), "operators.registry"),
        **dict.fromkeys(("BARE", "COMMON", "ShellSpec"), "operators.shell.spec"),
        **dict.fromkeys(("Core", "Mixer"), "operators.mixer"),
        "Cost": "operators.cost",
        "pde": "operators.pde",
    },
)
