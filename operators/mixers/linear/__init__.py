"""Mixers that read a summary of all tokens, linear in their number."""
