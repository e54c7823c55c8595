"""Probes whose answer is a linear operator applied to a field."""
