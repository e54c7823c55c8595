"""Uncertainty from the test images: two trained classifiers, or several seeds of each, on the same images.

This is not the uncertainty over seeds. It says how far a difference of accuracies would move with another test set of
the same kind, the models being given; `fit_factorial` and `paired_differences` say how far it would move with another
training run, the test set being given. `error_of_images` is the part that is to be added for a claim on both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, signal, special, stats

from ablations.statistics.intervals import check_level
from operators.errors import InputError

Correct = npt.NDArray[np.bool_]
FEW = 4
"""Degrees of freedom below which those of Welch and Satterthwaite promise too much: with two, and images that make up a
fifth of the variance, 7.6 % of 95 % intervals miss (with four 5.8 %; drawn)."""


@dataclass(frozen=True)
class ImageDifference:
    """Accuracy of the first less that of the second on the same images, with its interval and the p-value of none."""

    difference: float
    low: float
    high: float
    p: float
    images: int
    seeds: int


def image_difference(first: Correct, second: Correct, level: float = 0.95) -> ImageDifference:
    """Two classifiers on the same images: McNemar's exact test and Tango's score interval.

    Args:
        first: (N,) bool, which images the first classifier gets right.
        second: (N,) bool, the same of the second, in the same order of images.
        level: of the interval.

    Raises:
        InputError: not two boolean vectors of one length, none empty; or a level that is not between 0 and 1.
    """
    _check(first, second, dimensions=1)
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    low, high = tango_interval(only_first, only_second, len(first), level)
    difference = (only_first - only_second) / len(first)
    return ImageDifference(difference, low, high, mcnemar(only_first, only_second), len(first), 1)


def image_difference_over_seeds(first: Correct, second: Correct, level: float = 0.95) -> ImageDifference:
    """Two arms on the same images, averaged over seeds; the trained models are taken as given.

    An image's score is its mean over seeds of (first right) - (second right). Images are independent, seeds on one
    image are not; so the average is taken first and the spread is that between images. The test flips the signs of the
    images' scores: exactly, which for one seed is McNemar's exact test. The interval is Wald's after adding two
    images (one both agree upon, a half for each arm), without which it would have no width where no image tells the
    arms apart; for one seed it is Agresti and Min's.

    Args:
        first: (S, N) bool, per seed and image whether the first arm's model is right.
        second: (S, N) bool, the same of the second arm, in the same order of seeds and images.
        level: of the interval.

    Source: Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", Stat. Med. 24
    (2005); the average over seeds in place of one classifier's score is ours.

    Raises:
        InputError: not two boolean matrices of one shape, none empty; or a level that is not between 0 and 1.
    """
    _check(first, second, dimensions=2)
    check_level("level", level)
    score = (first.astype(np.float64) - second).mean(axis=0)
    total, squares, images = float(score.sum()), float(np.square(score).sum()), score.size
    centre = total / (images + 2)
    half = _normal(level) * math.sqrt(((squares + 1) / (images + 2) - centre**2) / (images + 2))
    p = sign_flip_p(first.sum(axis=0, dtype=np.int64) - second.sum(axis=0, dtype=np.int64))
    low, high = max(centre - half, -1.0), min(centre + half, 1.0)
    return ImageDifference(total / images, low, high, p, images, len(first))


def error_of_images(scores: npt.NDArray[np.float64]) -> float:
    """Standard error that test images add to the mean of a score, beside its error over seeds; nan below two of either.

    Seeds and images are crossed: each seed's models answer all images. The score of seed s on image i, of an arm or of
    a contrast of arms, is

        x_si = mean + a_s + b_i + e_si,    all uncorrelated, with variances A, B and E,

    so that the mean over n seeds and N images has the variance A/n + B/N + E/(n N). What an interval over seeds goes
    by is the variance of the n means over images, divided by n: its expectation is A/n + E/(n N). The variance of the N
    means over seeds, divided by N, has the expectation B/N + E/(n N). The second holds again what chance each seed has
    on each image. The mean square of x_si - x_s. - x_.i + x_.. over (n - 1)(N - 1), divided by n N, has the expectation
    E/(n N). So the variance for other seeds and other images is the first, plus the second less the third; the root of
    this difference, or zero, is the error here. No normal distribution is needed.

    Args:
        scores: (n, N), per seed and image.

    Source: Owen, "The pigeonhole bootstrap", Ann. Appl. Stat. 1 (2007), arXiv:0712.1111, section 2, for crossed random
    effects and for why resampling one of both is not enough; Searle, Casella and McCulloch, Variance Components (1992),
    ch. 4, for the expectations.
    """
    n, images = scores.shape
    if n < 2 or images < 2:
        return math.nan
    by_seed, by_image = scores.mean(axis=1, keepdims=True), scores.mean(axis=0)
    rest = scores - by_seed - by_image + by_image.mean()
    residual = float(np.square(rest).sum()) / ((n - 1) * (images - 1))
    return math.sqrt(max(0.0, float(by_image.var(ddof=1)) / images - residual / (n * images)))


def allow_for_images(half: float, error: float, level: float, family: int = 1, df: float = math.inf) -> float:
    """Half width of an interval over seeds, made to hold for other test images as well.

    The error over seeds is taken from the half width, and the `error` that images add is added to it, as squares. The
    degrees of freedom of the sum are Welch and Satterthwaite's, those of the images being without number; for `family`
    effects together by Bonferroni's inequality. Without `df`, and with fewer than `FEW`, half widths add up as squares,
    which is on the safe side.

    Args:
        half: of the interval over seeds.
        error: that images add.
        level: of the interval.
        family: of how many effects the interval holds for all together.
        df: degrees of freedom of the interval over seeds.

    Sources: Satterthwaite, Biometrics Bull. 2 (1946); Zou and Donner, "Construction of confidence limits about effect
    measures", Stat. Med. 27 (2008), for the sum of squared distances to the limits.
    """
    if not math.isfinite(half):
        return half
    level = 1 - (1 - level) / family
    df = df if df >= FEW else math.inf
    seeds = half / _student(df, level)
    both = math.hypot(seeds, error)
    return both * _student(both_df(seeds, df, error), level)


def both_df(seeds: float, df: float, images: float) -> float:
    """Degrees of freedom of the sum of an error over seeds, which has `df`, and one of images, which is known."""
    if df < FEW:
        return df
    return df * (1 + (images / seeds) ** 2) ** 2 if seeds > 0 else math.inf


def sign_flip_p(scores: npt.NDArray[np.int64]) -> float:
    """Exact two-sided p-value of the sum of whole numbers whose signs are random, all 2^N of them equally likely.

    The numbers of one size s add s (2 B - n), with B binomial of n and 1/2; the sum over sizes is a convolution.

    Source: Fisher, The Design of Experiments (1935), section 21.
    """
    sizes, counts = np.unique(np.abs(scores[scores != 0]), return_counts=True)
    chances = np.ones(1)  # of the sums -reach, ..., reach
    for size, count in zip(sizes, counts, strict=True):
        binomial = np.zeros(2 * size * count + 1)
        binomial[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        chances = signal.convolve(chances, binomial)
    reach = len(chances) // 2
    total = abs(int(scores.sum()))
    if total == 0:
        return 1.0
    return float(np.clip(2 * chances[reach + total :].sum(), 0.0, 1.0))


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value: among images that one alone gets right, either is as likely to be that one.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12
    (1947), with the binomial distribution in place of its normal approximation.
    """
    _check_counts(only_first, only_second, only_first + only_second)
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


def tango_interval(only_first: int, only_second: int, images: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a difference of paired proportions: all differences that the score test does not reject.

    Source: Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Stat. Med. 17 (1998), eqs. 23-25.

    Raises:
        InputError: counts that are negative or more than the images; a level that is not between 0 and 1.
    """
    check_level("level", level)
    _check_counts(only_first, only_second, images)
    bound = _normal(level)
    b, c, n = only_first, only_second, images

    def score(difference: float) -> float:
        # The probability of "second alone is right" that is most likely given the difference solves a quadratic.
        linear = (2 * n - b + c) * difference - b - c
        root = math.sqrt(max(linear**2 + 8 * n * c * difference * (1 - difference), 0.0))
        second_alone = (root - linear) / (4 * n)
        variance = n * (2 * second_alone + difference * (1 - difference))
        return (b - c - n * difference) / math.sqrt(variance) if variance > 0 else 0.0

    estimate, edge = (b - c) / n, 1 - 1e-12
    low = optimize.brentq(lambda d: score(d) - bound, -edge, estimate, xtol=1e-12) if b - c > -n else -1.0
    high = optimize.brentq(lambda d: score(d) + bound, estimate, edge, xtol=1e-12) if b - c < n else 1.0
    return float(low), float(high)


def _normal(level: float) -> float:
    return float(special.ndtri((1 + level) / 2))


def _student(df: float, level: float) -> float:
    return float(special.stdtrit(df, (1 + level) / 2))


def _check(first: Correct, second: Correct, dimensions: int) -> None:
    what = "images" if dimensions == 1 else "seeds x images"
    for array in (first, second):
        if array.ndim != dimensions or array.dtype != np.bool_ or array.size == 0:
            raise InputError(f"{array.dtype} of shape {array.shape} is not right-or-wrong (bool) of {what}")
    if first.shape != second.shape:
        raise InputError(f"shapes {first.shape} and {second.shape} differ: both arms need the same {what}")


def _check_counts(only_first: int, only_second: int, images: int) -> None:
    if min(only_first, only_second) < 0 or only_first + only_second > images:
        raise InputError(f"{only_first} and {only_second} of {images} images: counts are >= 0 and together at most all")
