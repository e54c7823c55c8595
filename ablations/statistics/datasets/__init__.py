"""Arms over several data sets: aggregates, the probability of improvement, and the gain with data sets at random."""

from ablations.statistics.datasets.aggregates import (
    DataScores,
    Improvement,
    ProfilePoint,
    Share,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)
from ablations.statistics.datasets.mixed import GainOverData, gain_over_data

__all__ = [
    "DataScores",
    "GainOverData",
    "Improvement",
    "ProfilePoint",
    "Share",
    "gain_over_data",
    "interquartile_mean",
    "performance_profile",
    "probability_of_improvement",
]
