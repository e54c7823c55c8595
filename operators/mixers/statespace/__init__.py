"""Time-invariant state spaces, as convolutions along orders of the grid or over the whole of it."""
