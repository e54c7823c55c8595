"""Trunks of one width and one grid: the Vision Transformer and the Diffusion Transformer."""
