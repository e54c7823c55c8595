"""Data sets: where their images come from."""
