"""Mixers of state-space duality: Mamba-2 and its relatives."""
