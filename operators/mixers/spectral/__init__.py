"""Mixers by transforms: filters of the spectrum, networks on it, and long convolutions."""
