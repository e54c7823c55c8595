"""Mixers whose weights are similarities of tokens."""
