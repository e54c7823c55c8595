"""Convection, diffusion and reaction on an image grid, as a pure function."""

from typing import TYPE_CHECKING

from operators.runtime.lazy import attributes

if TYPE_CHECKING:
    from operators.pde.equation import propagate

__all__ = ["propagate"]

__getattr__ = attributes(__name__, {"propagate": "operators.pde.equation"})
