"""Metrics agree with SciPy or a calculation by hand; numbers read well."""

import math

import numpy as np
import pytest
from scipy import stats

import helpers


def runs(accuracies, wrong, seeds=range(9)):
    probs = np.eye(2)[np.array(wrong, int)]
    return helpers.Runs({"seeds": seeds}, [helpers.Run(
        None, helpers.History(), 0, 0, 0, accuracy, probs,
        np.zeros(len(wrong), int)) for accuracy in accuracies])


@pytest.mark.parametrize("first, second, only_first, only_second, shown", [
    ([97.2, 97.1, 97.4], [96.1, 96.3, 96.0], 0, 9, True),
    ([97.2, 97.1, 97.4], [96.1, 96.3, 96.0], 3, 9, False),   # few images
    ([97.2, 97.1, 97.4], [96.1, 98.3, 97.0], 0, 9, False),   # seeds disagree
    ([97.2], [96.1, 96.3], 1, 12, True),
    ([97.2], [96.1], 5, 5, False),
    ([97.2], [97.2], 0, 0, False)])
def test_compare(first, second, only_first, only_second, shown):
    p = (stats.binomtest(only_first, only_first + only_second).pvalue
         if only_second else 1)
    wrong = [1] * only_first + [0] * only_second + [1, 0]
    other = [0] * only_first + [1] * only_second + [1, 0]
    found = helpers.compare(runs(first, wrong), runs(second, other))
    pairs = list(zip(first, second))
    assert np.allclose(found[::2], (-np.mean(np.diff(pairs)), p))
    assert len(pairs) == 1 or math.isclose(
        found.p_seeds, stats.ttest_rel(*zip(*pairs)).pvalue)
    assert found.shown == shown


def test_compare_pairs_by_seed():
    found = helpers.compare(runs([97, 98, 99], [0], [4, 5, 6]),
                            runs([90, 80], [0], [6, 4]))
    assert found.points.values.tolist() == [97 - 80, 99 - 90]


def test_compare_without_spread_over_seeds():
    steady = helpers.compare(runs([97, 98], [0] * 9), runs([96, 97], [1] * 9))
    assert math.isnan(steady.p_seeds) and not steady.shown


def test_top_confusions():
    y, predicted = [9, 4, 4, 4, 7, 7, 1], [4, 9, 9, 9, 2, 2, 1]
    found = [(4, 9, 3), (7, 2, 2), (9, 4, 1)]
    assert helpers._top_confusions(y, predicted, 9) == found
    assert helpers._top_confusions(y, predicted, 2) == found[:2]


def test_calibration_error():
    # Two images 95 % sure, one right; two images 60 % sure, both right.
    probs = np.array([[0.95, 0.05], [0.95, 0.05], [0.4, 0.6], [0.4, 0.6]])
    error = helpers.calibration_error(probs, np.array([0, 1, 1, 1]))
    assert math.isclose(error, (45 + 40) / 2)
    assert helpers.calibration_error(np.eye(2), np.array([0, 0])) == 50


def test_accuracy_interval():     # E. B. Wilson's, worked out by hand
    assert helpers.accuracy_interval(0, 10) == pytest.approx(
        (0, 100 * 1.96 ** 2 / (10 + 1.96 ** 2)), abs=0.01)


def test_numbers_and_tables_read_well():
    mean, single = helpers.Mean([1, 2, 4]), helpers.Mean([97.123])
    assert f"{mean:±.2f}, {mean:.2f}" == "2.33 ± 1.53, 2.33"
    assert f"{single:±.2f}" == "97.12"
    rows = [{"model": "a", "loss": "0.10"}, {"model": "b", "loss": "10.25"}]
    assert helpers.table_markdown(rows, 3, "Two\n models.").splitlines() == [
        "**Table 3.** Two models.", "", "| model   |   loss |",
        "|:--------|-------:|", "| a       |   0.10 |",
        "| b       |  10.25 |"]
