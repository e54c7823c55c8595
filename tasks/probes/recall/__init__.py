"""Probes that ask for what other cells hold, wherever they are."""
