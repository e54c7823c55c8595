"""Convection, diffusion and reaction on an image grid: a pure function, and the mixer `pde_ssm` made of it."""

from operators.pde.core import PdeSsm
from operators.pde.propagate import propagate

__all__ = ["PdeSsm", "propagate"]
