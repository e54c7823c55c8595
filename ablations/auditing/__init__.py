"""Checks of a study's directory: every number derived again from the files of its trials. Nothing is written."""
