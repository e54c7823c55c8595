"""VRMSE by hand."""

import numpy as np

from tasks.fields.vrmse import vrmse


def test_values_by_hand() -> None:
    true = np.array([[[0.0, 2.0], [4.0, 6.0]], [[1.0, 1.0], [3.0, 3.0]]])  # of variances 5 and 1
    predicted = true + np.array([[[1.0, -1.0], [3.0, 1.0]], [[2.0, 0.0], [0.0, 0.0]]])  # of mean squares 3 and 1
    np.testing.assert_allclose(vrmse(predicted, true), (np.sqrt(3 / 5) + 1) / 2, rtol=1e-6)


def test_the_mean_scores_one_and_the_truth_nothing() -> None:
    true = np.random.default_rng(0).standard_normal((3, 2, 8, 8))
    mean = np.broadcast_to(true.mean(axis=(2, 3), keepdims=True), true.shape)
    np.testing.assert_allclose(vrmse(mean, true), np.ones(3), rtol=1e-6)
    assert not vrmse(true, true).any()
    np.testing.assert_allclose(vrmse(7 - 3 * mean, 7 - 3 * true), np.ones(3), rtol=1e-6)


def test_what_leaves_the_numbers_is_infinitely_wrong() -> None:
    true = np.random.default_rng(0).standard_normal((3, 1, 4, 4)).astype(np.float32)
    predicted = true.copy()
    predicted[0, 0, 0, 0], predicted[1, 0, 0, 0] = np.nan, np.inf
    np.testing.assert_array_equal(vrmse(predicted, true), [np.inf, np.inf, 0])
