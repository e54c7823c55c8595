"""Probes in which cells belong together through other cells: regions, paths, contours, mirror images."""
