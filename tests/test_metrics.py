"""Metrics agree with scikit-learn, SciPy or a calculation by hand."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

import helpers


@pytest.fixture
def labels(rng):
    """Return true and predicted labels of 500 images, 70 % equal."""
    y = rng.integers(10, size=500)
    return y, np.where(rng.random(500) < 0.7, y, rng.integers(10, size=500))


def test_predictive_summary(labels):
    rows = helpers.predictive_summary(*labels)
    assert [row["percent"] for row in rows] == ["precision", "recall", "F1"]
    for row, score in zip(rows, (metrics.precision_score,
                                 metrics.recall_score, metrics.f1_score)):
        for digit, value in enumerate(score(*labels, average=None)):
            assert row[str(digit)] == f"{100 * value:.1f}"
        assert row["mean"] == f"{100 * score(*labels, average='macro'):.2f}"


def test_predictive_summary_without_a_class():
    y, predicted = np.zeros(4, int), np.array([0, 0, 1, 1])
    precision, recall, _ = helpers.predictive_summary(y, predicted)
    assert (precision["0"], recall["0"]) == ("100.0", "50.0")
    assert (precision["1"], recall["1"], recall["9"]) == ("0.0",) * 3


def test_top_confusions():
    y = np.array([4, 4, 4, 7, 7, 1, 1, 9])
    predicted = np.array([9, 9, 9, 2, 2, 1, 1, 4])
    assert helpers.top_confusions(y, predicted, 2) == [(4, 9, 3), (7, 2, 2)]
    assert helpers.top_confusions(y, predicted, 9) == [
        (4, 9, 3), (7, 2, 2), (9, 4, 1)]
    assert helpers.top_confusions(y, y, 3) == []


def test_calibration_by_hand():
    # Two images 95 % sure, one right; two images 60 % sure, both right.
    probs = np.array([[0.95, 0.05], [0.95, 0.05], [0.4, 0.6], [0.4, 0.6]])
    y = np.array([0, 1, 1, 1])
    confidence, accuracy, share, error = helpers.calibration(probs, y)
    assert math.isclose(confidence[9], 0.95) and accuracy[9] == 0.5
    assert math.isclose(confidence[6], 0.6) and accuracy[6] == 1
    assert share.tolist() == [0] * 6 + [0.5, 0, 0, 0.5]
    assert np.isnan(confidence[:6]).all() and np.isnan(accuracy[7])
    assert math.isclose(error, 0.5 * 0.45 + 0.5 * 0.4)


def test_calibration_of_certainty():
    probs = np.eye(10)[[3, 4]]
    *_, share, error = helpers.calibration(probs, np.array([3, 4]))
    assert error == 0 and share[9] == 1
    assert helpers.calibration(probs, np.array([0, 0]))[3] == 1


@pytest.mark.parametrize("only_a, only_b", [(10, 2), (3, 3), (0, 5), (1, 0)])
def test_mcnemar(only_a, only_b):
    a = np.array([True] * only_a + [False] * only_b + [True] * 7 + [False])
    b = np.array([False] * only_a + [True] * only_b + [True] * 7 + [False])
    n, k = only_a + only_b, min(only_a, only_b)
    by_hand = min(1, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2 ** n)
    assert math.isclose(helpers.mcnemar(a, b), by_hand)
    assert math.isclose(helpers.mcnemar(b, a), by_hand)


def test_mcnemar_without_disagreement():
    same = np.array([True, False, True])
    assert helpers.mcnemar(same, same) == 1


def test_paired_test():
    a, b = [97.2, 97.1, 97.4, 97.3], [96.1, 96.3, 96.0, 96.2]
    difference = np.subtract(a, b)
    t = difference.mean() / (difference.std(ddof=1) / 2)
    assert math.isclose(helpers.paired_test(a, b), 2 * stats.t.sf(t, 3))
    assert math.isnan(helpers.paired_test([97.0], [96.0]))
    assert math.isnan(helpers.paired_test([97.0, 98.0], [96.0, 97.0]))


def test_accuracy_interval():
    z, n, p = stats.norm.ppf(0.975), 10_000, 0.9935
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = (z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
            / (1 + z * z / n))
    assert np.allclose(helpers.accuracy_interval(9935, n),
                       (100 * (center - half), 100 * (center + half)))
    assert helpers.accuracy_interval(10, 10)[1] == 100


def test_mean_std():
    assert helpers.mean_std([1, 2, 4]) == "2.33 ± 1.53"
    assert helpers.mean_std([1, 2, 4], 0) == "2 ± 2"
    assert helpers.mean_std([97.123]) == "97.12"


@pytest.mark.parametrize("p, text", [
    (0.0009, "p < 0.001"), (0.001, "p = 0.001"), (0.0314, "p = 0.031"),
    (1.0, "p = 1.000")])
def test_format_p(p, text):
    assert helpers.format_p(p) == text


def test_table_markdown():
    rows = [{"model": "a", "loss": "0.1"}, {"model": "bb", "loss": "10.25"}]
    caption, blank, head, rule, *body = helpers.table_markdown(
        rows, 3, """Two models,
        and their loss.""").splitlines()
    assert caption == "**Table 3.** Two models, and their loss."
    assert blank == ""
    assert head.split() == ["|", "model", "|", "loss", "|"]
    assert [cell[-1] for cell in rule.strip("|").split("|")] == ["-", ":"]
    assert [line.replace(" ", "") for line in body] == ["|a|0.1|",
                                                        "|bb|10.25|"]


def test_say_folds_lines_and_keeps_percent_signs_with_numbers(monkeypatch):
    shown = []
    monkeypatch.setattr(helpers, "display", shown.append)
    helpers.say("""Accuracy is
        97.1 %, and so
on.

        - A list.""")
    assert shown[0].data == "Accuracy is 97.1\u00a0%, and so on.\n\n- A list."


def test_timing_sums_up_its_sections(monkeypatch):
    clock = iter([0.0, 60.0, 150.0, 180.0])
    monkeypatch.setattr(helpers.time, "perf_counter", lambda: next(clock))
    timing = helpers.Timing("1 Setup")
    timing.section("2 Data")
    timing.section("10 Speed")
    assert timing.rows() == [{"section": "minutes", "1": "1.0", "2": "1.5",
                              "10": "0.5", "all": "3.0"}]


def test_history_add():
    history = helpers.History()
    history.add(200, np.float32(0.5), np.float64(0.25), 0.9)
    assert (history.iterations, history.train_loss, history.test_loss,
            history.test_accuracy) == ([200], [0.5], [0.25], [0.9])
    assert helpers.History().iterations == []       # nothing shared
