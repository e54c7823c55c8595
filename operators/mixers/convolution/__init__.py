"""Mixers by short convolutions, with what their papers put around them: activations, parts of the channels, a gate."""
