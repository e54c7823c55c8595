"""What a study may say about its numbers: intervals, factorial effects, paired differences, images, power, equivalence.

Two uncertainties are kept apart. That over seeds (another training run) is in `fit_factorial` and
`paired_differences`; that over test images (another test set of the same kind) is in `image_difference`, for models as
they were trained. `allow_for_images` adds both up.
"""

from ablations.statistics.chosen.allpairs import (
    BestArm,
    Loudest,
    SimultaneousDifference,
    best_arm,
    compare_with,
    loudest,
)
from ablations.statistics.effects import Effect, FTest, Observation, Residual, Term
from ablations.statistics.equivalence import Equivalence, equivalence
from ablations.statistics.factorial import FactorialFit, FactorialModel, fit_factorial
from ablations.statistics.images import (
    ImageDifference,
    allow_for_images,
    error_of_images,
    image_difference,
    image_difference_over_seeds,
    mcnemar,
    tango_interval,
)
from ablations.statistics.intervals import Interval, t_interval
from ablations.statistics.moderated import ModeratedEffect, moderate
from ablations.statistics.paired import PairedDifference, holm, paired_differences
from ablations.statistics.power import (
    Shown,
    paired_power,
    seeds_needed,
    smallest_difference,
    smallest_paired_difference,
    t_power,
)

__all__ = [
    "BestArm",
    "Effect",
    "Equivalence",
    "FTest",
    "FactorialFit",
    "FactorialModel",
    "ImageDifference",
    "Interval",
    "Loudest",
    "ModeratedEffect",
    "Observation",
    "PairedDifference",
    "Residual",
    "Shown",
    "SimultaneousDifference",
    "Term",
    "allow_for_images",
    "best_arm",
    "compare_with",
    "equivalence",
    "error_of_images",
    "fit_factorial",
    "holm",
    "image_difference",
    "image_difference_over_seeds",
    "loudest",
    "mcnemar",
    "moderate",
    "paired_differences",
    "paired_power",
    "seeds_needed",
    "smallest_difference",
    "smallest_paired_difference",
    "t_interval",
    "t_power",
    "tango_interval",
]
