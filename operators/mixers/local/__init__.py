"""Mixers whose tokens meet their neighbours only."""
