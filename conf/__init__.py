"""Hydra configuration; the YAML files are the content."""
