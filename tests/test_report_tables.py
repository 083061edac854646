import numpy as np
import pytest

from pwm_jax.report import tables
from pwm_jax.report.stats import Estimate
from pwm_jax.report.verdict import judge

RETURNS = {
    "walker-walk": {"bc": [np.array([400.0, 400.0])], "extracted": [np.array([800.0, 800.0])], "data": [np.array([300.0, 300.0])]},
    "mw-reach": {"bc": [np.array([20.0, 20.0])], "extracted": [np.array([20.0, 20.0])]},
}


@pytest.mark.parametrize(
    ("value", "text"),
    [(1820.4, "1820"), (99.96, "100"), (12.34, "12.3"), (9.996, "10.0"), (0.314, "0.31"), (-0.001, "0.00"), (float("nan"), "—")],
)
def test_numbers_have_three_digits(value, text):
    assert tables.format_number(value) == text


def test_estimates_show_their_interval_when_there_is_one():
    assert tables.format_estimate(Estimate(853.0, 812.3, 890.2, 20, "episodes")) == "853 [812, 890]"
    assert tables.format_estimate(Estimate(853.0, float("nan"), float("nan"), 1, "episodes")) == "853"


def test_score_table_by_hand():
    assert tables.score_table(RETURNS, judge(RETURNS)) == [
        ["task", "extracted", "bc", "data", "extracted vs data", "extracted vs bc"],
        ["walker-walk", "800 [800, 800]", "400 [400, 400]", "300 [300, 300]", "better (+500)", "better (+400)"],
        ["mw-reach", "20.0 [20.0, 20.0]", "20.0 [20.0, 20.0]", "—", "not measured", "equal (+0.00)"],
    ]


def test_text_and_markdown_layout():
    rows = [["task", "a"], ["x|y", "12"], ["z", "345"]]
    assert tables.text_table(rows) == "task    a\n----  ---\nx|y    12\nz     345\n"
    assert tables.markdown_table(rows) == "| task | a |\n| --- | ---: |\n| x\\|y | 12 |\n| z | 345 |\n"


def test_aggregates_need_every_task():
    (mean, iqm) = tables.aggregate_rows(RETURNS, ["bc", "data"])
    assert mean == ["mean score", "210 [210, 210]", "—"]
    assert iqm[0] == "IQM score"


def test_summary_ends_with_the_criteria():
    text = tables.summary(RETURNS, RETURNS)
    assert "The extracted policies (not met):" in text
    assert "[not met] beat behaviour cloning on at least 2 of 2 tasks (better on 1: walker-walk)" in text
    assert "[not measured] beat the mean behaviour in the data on every task (not evaluated on mw-reach)" in text
    assert "extracted policies" not in tables.summary({"t": {"pwm": [np.ones(3)]}}, {"t": {"pwm": [np.ones(3)]}})
