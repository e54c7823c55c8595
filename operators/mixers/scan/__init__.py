"""Mixers that run a selective scan along orders of the grid."""
