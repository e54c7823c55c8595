"""Mixers that solve an equation on the grid."""
