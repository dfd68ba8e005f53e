"""Comments show what was measured, and say so where they do not hold."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_metrics import runs

import helpers


@pytest.fixture(autouse=True)
def register(monkeypatch):
    """Put two experiments into the register, by their accuracies."""
    monkeypatch.setattr(helpers, "_REGISTER", {
        "relu": runs([96, 97]), "tanh": runs([50, 51])})


def test_numbers_are_filled_in_and_percent_signs_stay_with_them(monkeypatch):
    shown = []
    monkeypatch.setattr(helpers, "display", shown.append)
    helpers.comment("""Of {n:,} images {relu.accuracy:±.1f} % are
        right, loss {relu.loss:g}, error {x:.0e}; {tanh.accuracy:.0f} %.""",
                    "relu.accuracy > 2 - n > -2000", n=1500, x=2e-12)
    assert shown[0].data == ("Of 1,500 images 96.5 ± 0.7\u00a0% are right, "
                             "loss 0.035, error 2·10⁻¹²; 50\u00a0%.")


@pytest.mark.parametrize("condition, holds", [
    ("relu.accuracy > tanh.accuracy", True), ("max(1, abs(-2)) == 2", True),
    ("not shown(relu, relu)", True), ("relu.accuracy < 50", False),
    ("shown(relu, tanh, 'penalty')", False), ("compare(relu, tanh) > 9", True),
    ("missing > 1", False), ("1 / 0", False), ("1 +", False),
    ("relu.first.y", False)])
def test_a_comment_that_does_not_hold_is_shown_and_says_why(condition, holds):
    text = helpers.fill_in("The text.", condition, "1 < 2")
    assert text.endswith("The text.")
    assert ("does not hold" in text) == (condition in text) == (not holds)
    assert "1 < 2" not in text


def test_fields_compute_and_a_string_holds_several_conditions():
    text = helpers.fill_in("""{100 * x:.0f}, {relu.accuracy -
        max(1, tanh.accuracy):.1f}.""", "x > 0; x <\n 1; x > 2", x=0.5)
    assert text.endswith("50, 46.0.") and "(not so: `x > 2`)" in text


def test_a_caption_says_only_what_holds():
    assert helpers.finding("Up to {tanh}.", "tanh > 1", tanh=2) == "Up to 2."
    assert helpers.finding("Up to {n}.", "n > 1", n=1) == ""
    assert helpers.finding("Up to {n}.") == ""


@pytest.mark.parametrize("value", [
    None, "six", float("nan"), np.inf, [1.0], 10 ** 400,
    torch.ones(2), SimpleNamespace()])
def test_an_odd_number_is_a_dash(value):
    for field in ("{x:.2f}", "{relu.x:.2f}", "{missing}", "{missing!r}"):
        text = helpers.fill_in(f"It is {field} here.", x=value)
        assert "does not hold" in text and "It is – here." in text


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(["x", "x.real", "x[0]", "x!r", "missing", "relu.x"]),
       st.text("±.,+-<>=^ 0123456789bcdefgns%", max_size=4),
       st.one_of(st.none(), st.floats(), st.integers(), st.complex_numbers(),
                 st.text(max_size=3), st.lists(st.floats(), max_size=2)))
def test_no_number_and_no_format_ends_a_run(field, spec, x):
    text = helpers.fill_in(f"It is {{{field}:{spec}}} here.", "x > 1", x=x)
    text = text.replace("\xa0", " ")        # before a percent sign
    assert "It is " in text and " here." in text
