"""Probes that look ahead in time."""
