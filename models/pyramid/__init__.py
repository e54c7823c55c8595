"""The pyramid: stages of blocks, each on half the grid of the one before it."""
