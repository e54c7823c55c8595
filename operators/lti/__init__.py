"""Mathematics of linear time-invariant state spaces, which the mixers of `operators.mixers.statespace` share."""
