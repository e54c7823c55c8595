"""Probes that copy an image on a canvas to a fixed square: which one, a place, a mask or a colour tells."""
