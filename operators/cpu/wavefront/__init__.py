"""Compiled recurrences over the two axes of a grid, forward and backward."""
