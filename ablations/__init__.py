"""Studies and the statistics of comparison."""
