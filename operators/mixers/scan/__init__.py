"""Mixers that run a selective scan along orders of the grid."""

FOURTH_DEGREE = "the scan is of fourth degree in u, and LayerNorm cannot square what a token of 1e6 becomes in float32"
"""Why a mixer whose shell has a LayerNorm is exempt from extreme inputs."""
