"""From a directory of trials to a summary."""
