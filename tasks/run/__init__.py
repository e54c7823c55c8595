"""Carrying out a run."""
