"""Weights that a run starts from and this program has not written: timm's and DeiT's ViTs, DiT's and SiT's."""
