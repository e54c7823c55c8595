"""Trajectories of partial differential equations on a square, made here or read from files of The Well."""
