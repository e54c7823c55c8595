"""Agreement of a study's ranks with ranks that are known from elsewhere, such as published scores."""

from ablations.statistics.ranks.agreement import LEAST, Agreement, Compared, agreement, over_seeds, seed_draws

__all__ = ["LEAST", "Agreement", "Compared", "agreement", "over_seeds", "seed_draws"]
