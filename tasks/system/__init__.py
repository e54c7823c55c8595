"""Files, signals, failures and provenance of a run."""
