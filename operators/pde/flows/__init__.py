"""Closed-form solutions over one unit of time: of the telegraph equation at a wave number, of pointwise reactions."""
