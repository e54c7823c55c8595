"""Published models as data: their trunk, their mixers, and what their authors report."""

from __future__ import annotations

from models.published.diffusion import DIFFUSION
from models.published.entry import PublishedModel
from models.published.hybrids import HYBRIDS
from models.published.isotropic import ISOTROPIC
from models.published.metaformers import METAFORMERS
from models.published.pyramids import PYRAMIDS

MODELS: dict[str, PublishedModel] = {**PYRAMIDS, **METAFORMERS, **HYBRIDS, **ISOTROPIC, **DIFFUSION}
"""The published models by name."""
