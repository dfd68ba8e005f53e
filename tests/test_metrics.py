"""Metrics agree with SciPy or a calculation by hand; numbers read well."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.text import Text
from scipy import stats

import helpers


def runs(accuracies, seeds=range(9)):
    return helpers.Runs({"seeds": seeds}, [helpers.Run(
        None, helpers.History(), 0, 0, 1 - accuracy / 100, accuracy,
        np.eye(2), np.zeros(2, int)) for accuracy in accuracies])


@pytest.mark.parametrize("first, second, shown", [
    ([97.2, 97.1, 97.4], [92.1, 92.3, 92.1], True),
    ([92.1, 92.3, 92.1], [97.2, 97.1, 97.4], True),
    ([97.2, 97.1, 97.4], [92.1, 92.3, 97.0], False)])   # seeds disagree
def test_compare_agrees_with_scipy(first, second, shown):
    found = helpers.compare(runs(first), runs(second))
    interval = stats.ttest_rel(first, second).confidence_interval(1 - 0.05 / 8)
    assert np.allclose([found, found.low, found.high],
                       [np.mean(first) - np.mean(second), *interval])
    assert found.shown == shown
    loss = helpers.compare(runs(first), runs(second), "cross_entropy")
    assert np.allclose([loss, loss.low], [-found / 100, -found.high / 100])


def test_compare_pairs_by_seed():
    first, second = runs([97, 98, 99], [4, 5, 6]), runs([90, 80], [6, 4])
    assert helpers.compare(first, second).values == [97 - 80, 99 - 90]
    assert not helpers.compare(first, runs([97], [6])).shown


def test_the_error_of_a_difference_counts_where_two_networks_differ():
    first, second = runs([99]), runs([98])
    first.first.y, second.first.y = np.array([[0, 0, 0, 0], [0, 1, 1, 0]])
    for run in (first.first, second.first):
        run.probs = np.eye(2)[[0, 0, 0, 0]]
    assert math.isclose(first.error_to(second), 100 * math.sqrt(2) / 4)
    assert first.gain(second) == "+1.00 ± 35.36"
    assert second.gain(first) == "−1.00 ± 35.36"


def test_the_error_of_a_difference_counts_seeds_too():
    first, second = runs([99, 95]), runs([98, 90])      # 1 and 5 points apart
    for run in (*first.each, *second.each):             # on the same images
        run.probs, run.y = np.eye(2), np.arange(2)
    assert math.isclose(first.error_to(second), 2)
    assert not first.beats(second)                      # by 3, less than 4
    first.each[0].accuracy = 102                        # by 4.5, +- 0.5
    assert first.beats(second) and not second.beats(first)


def test_differences_read_well():
    row, = helpers.compare_all({"a": (runs([96, 98]), runs([97, 97]))})
    assert row["accuracy in points"] == "0.00 (\u2212101.86 to 101.86)"
    assert row["cross-entropy"] == "0.000 (\u22121.019 to 1.019)"
    assert row["images"] == "± 0.00"
    assert row["seeds"] == 2


def test_precision_recall_and_confidence_in_errors():
    run, = runs([50]).each
    run.y, run.probs = np.array([3, 3, 3, 5]), np.eye(10)[[3, 5, 5, 5]]
    run.probs[1] = (0.04,) * 5 + (0.64,) + (0.04,) * 4
    found = helpers.class_scores(SimpleNamespace(each=[run]))
    assert np.allclose(found["precision"][[3, 5]], [100, 100 / 3])
    assert np.allclose(found["recall"][[3, 5]], [100 / 3, 100])
    assert np.allclose(found["f1"][[3, 5]], 50)
    assert math.isclose(run.error_confidence, (64 + 100) / 2)


def test_top_confusions():
    runs = [SimpleNamespace(y=[9, 4, 4, 1], predicted=[4, 9, 9, 1]),
            SimpleNamespace(y=[7, 7, 4], predicted=[2, 2, 9])]
    found = [(4, 9, 3), (7, 2, 2), (9, 4, 1)]
    assert helpers._top_confusions(runs, 9) == found
    assert helpers._top_confusions(runs, 2) == found[:2]


def test_slants():
    rows, columns = np.mgrid[:28, :28]
    images = [abs(columns - 14 - lean * (rows - 14)) < 1 for lean in (0, 0.5)]
    found = helpers.slants(np.reshape(images, (2, 784)).astype(np.float32))
    assert np.allclose(found, [0, 0.5], atol=0.02)
    # Upright ones, and slanted sevens, of which the last is upright, too.
    mixed = np.reshape([images[i] for i in (0, 0, 0, 1, 1, 1, 1, 1, 1, 0)],
                       (10, 784)).astype(np.float32)
    *_, far = helpers.by_slant(mixed, np.repeat([1, 7], [3, 7]))
    assert len(far) == 2 and far[1] == 9


def test_labels_of_curves_keep_apart_beside_the_axis():
    fig = helpers.draw_lines({"curves": {
        name: ([0, end], [1, 0.01], "-") for name, end in (
            ("low", 5), ("as low", 5), ("ends early", 3), ("lower", 5))}})
    fig.draw_without_rendering()
    axis = fig.axes[0].get_window_extent()
    boxes = sorted((Text.get_window_extent(label)   # without its line
                    for label in fig.axes[0].texts), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 for below, above in zip(boxes, boxes[1:]))
    assert all(axis.x1 < box.x0 and axis.y0 < box.y1 for box in boxes)
    helpers.plt.close(fig)


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
