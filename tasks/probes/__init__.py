"""Two-dimensional probes: small tasks with an exact solver, each of which asks an operator for one ability."""
