from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ablations.statistics import t_interval
from ablations.statistics.datasets import DataScores, gain_over_data
from operators.errors import InputError


def study(draw: np.random.Generator, sizes: list[int], data_sd: float, gain: float = 1.0) -> tuple[DataScores, ...]:
    """Arm and reference on data sets of so many seeds, which move both arms alike; runs have standard deviation 1."""
    arm, reference = {}, {}
    for place, seeds in enumerate(sizes):
        shared = 5 * place + 2 * draw.normal(size=seeds)
        own = gain + data_sd * draw.normal()
        reference[f"set {place}"] = dict(enumerate((shared + draw.normal(size=seeds)).tolist()))
        arm[f"set {place}"] = dict(enumerate((shared + own + draw.normal(size=seeds)).tolist()))
    return arm, reference


def differences(arm: DataScores, reference: DataScores) -> list[np.ndarray]:
    return [np.array([arm[data][seed] - reference[data][seed] for seed in arm[data]]) for data in arm]


@pytest.mark.parametrize("data_sd", [0.0, 1.0, 4.0])
def test_with_as_many_runs_everywhere_it_is_the_t_test_over_data_sets(data_sd: float) -> None:
    arm, reference = study(np.random.default_rng(0), [4] * 5, data_sd)
    found = gain_over_data(arm, reference)
    means = [rest.mean() for rest in differences(arm, reference)]
    expected = t_interval(means)
    assert found.alike.mean == pytest.approx(expected.mean)
    assert found.alike.half == pytest.approx(expected.half)
    assert found.p == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    assert found.these.mean == pytest.approx(expected.mean)
    assert list(found.by_data.values()) == [t_interval(rest) for rest in differences(arm, reference)]


def test_variances_are_those_of_the_analysis_of_variance() -> None:
    arm, reference = study(np.random.default_rng(1), [4] * 6, 3.0)
    found, rest = gain_over_data(arm, reference), differences(arm, reference)
    within = np.mean([one.var(ddof=1) for one in rest])
    assert found.run_sd**2 == pytest.approx(within, rel=1e-4)
    assert found.data_sd**2 == pytest.approx(np.var([one.mean() for one in rest], ddof=1) - within / 4, rel=1e-4)


def test_on_these_data_sets_it_is_welchs_test() -> None:
    arm, reference = study(np.random.default_rng(2), [3, 7], 1.0)
    first, second = differences(arm, reference)
    found = gain_over_data(arm, reference)
    welch = stats.ttest_ind(first, -second, equal_var=False)
    assert found.these.mean == pytest.approx((first.mean() + second.mean()) / 2)
    assert found.p_these == pytest.approx(welch.pvalue)
    interval = welch.confidence_interval()
    assert (2 * found.these.low, 2 * found.these.high) == pytest.approx((interval.low, interval.high))


def test_without_freedom_there_is_no_interval() -> None:
    single = gain_over_data(*study(np.random.default_rng(3), [3], 1.0))
    assert math.isinf(single.alike.half)
    assert single.p == 1
    assert math.isfinite(single.these.half)
    one_seed = gain_over_data(*study(np.random.default_rng(3), [1, 1, 1], 1.0))
    assert math.isinf(one_seed.these.half)
    assert math.isnan(one_seed.run_sd)
    assert math.isfinite(one_seed.alike.half)


def test_only_common_data_sets_and_seeds_count() -> None:
    arm, reference = study(np.random.default_rng(4), [3, 3, 3], 1.0)
    more = {**arm, "set 0": {**arm["set 0"], 9: 100.0}, "elsewhere": {0: 7.0}}
    assert gain_over_data(more, reference) == gain_over_data(arm, reference)
    with pytest.raises(InputError, match="at one seed"):
        gain_over_data({"elsewhere": {0: 7.0}}, reference)


@pytest.mark.slow
@pytest.mark.parametrize("data_sd", [1.5, 4.0])
@pytest.mark.parametrize("sizes", [[4] * 6, [3, 5, 2, 8, 3, 10]])
def test_statsmodels_finds_the_same_variances_and_gain(sizes: list[int], data_sd: float) -> None:
    from statsmodels.regression.mixed_linear_model import MixedLM

    arm, reference = study(np.random.default_rng(5), sizes, data_sd)
    rest = differences(arm, reference)
    groups = np.repeat(np.arange(len(rest)), [len(one) for one in rest])
    values = np.concatenate(rest)
    fit = MixedLM(values, np.ones((len(values), 1)), groups=groups).fit(reml=True)
    found = gain_over_data(arm, reference)
    assert found.alike.mean == pytest.approx(float(fit.fe_params[0]), rel=1e-4)
    assert found.data_sd**2 == pytest.approx(float(fit.cov_re[0, 0]), rel=1e-2)
    assert found.run_sd**2 == pytest.approx(float(fit.scale), rel=1e-2)


@pytest.mark.slow
def test_statsmodels_finds_the_same_gain_in_the_scores_themselves() -> None:
    """With data sets, seeds within them and arm × data set at random, as the model is written down."""
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

    arm, reference = study(np.random.default_rng(6), [4] * 6, 3.0)
    rows = [
        (score, which, int(data.split()[1]), seed)
        for which, scores in enumerate((reference, arm))
        for data, of_seed in scores.items()
        for seed, score in of_seed.items()
    ]
    value, which, data, seed = map(np.array, zip(*rows, strict=True))
    groups = [np.flatnonzero(data == one) for one in range(6)]
    interaction = [np.eye(2)[which[rows]] for rows in groups]
    seeds = [np.eye(4)[seed[rows]] for rows in groups]
    labels = [[[str(n) for n in range(part[0].shape[1])] for _ in groups] for part in (interaction, seeds)]
    components = VCSpec(["arm x data", "seed"], labels, [interaction, seeds])
    order = np.concatenate(groups)
    design = np.stack([np.ones(len(order)), which[order]], axis=1)
    fit = MixedLM(value[order], design, groups=data[order], exog_re=np.ones((len(order), 1)), exog_vc=components).fit(
        reml=True, method=["powell", "lbfgs"]
    )
    found = gain_over_data(arm, reference)
    assert found.alike.mean == pytest.approx(float(fit.fe_params[1]), rel=1e-6)
    # A difference has twice the variance of an arm's own part.
    assert found.data_sd**2 == pytest.approx(2 * float(fit.vcomp[0]), rel=0.02)
    assert found.run_sd**2 == pytest.approx(2 * float(fit.scale), rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("data_sets", [2, 3, 5, 8])
def test_coverage(data_sets: int) -> None:
    """Nominal 95 %: 3 seeds, or 3 and 6, on each; the gain differs between data sets by 0, 1 or 3 runs' deviations."""
    draw = np.random.default_rng(data_sets)
    alike, p_values = [], []
    for sizes in ([3] * data_sets, [3 + 3 * (place % 2) for place in range(data_sets)]):
        for data_sd in (0.0, 1.0, 3.0):
            for _ in range(250):
                found = gain_over_data(*study(draw, sizes, data_sd, gain=0.0))
                alike.append(found.alike.low <= 0 <= found.alike.high)
                if not data_sd:
                    p_values.append(found.p_these < 0.05)
    assert 0.93 <= np.mean(alike) <= 0.97, f"{np.mean(alike):.4f}"
    assert 0.02 <= np.mean(p_values) <= 0.07, f"{np.mean(p_values):.4f}"
