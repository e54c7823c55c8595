"""Probes that test what training did not show: other orientations, other resolutions."""
