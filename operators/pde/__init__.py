"""Convection, diffusion and reaction on an image grid, as a pure function."""

from operators.pde.propagate import propagate

__all__ = ["propagate"]
