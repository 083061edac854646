import numpy as np

from pwm_jax.report import tables
from pwm_jax.report.decisions import DecisionTime
from pwm_jax.report.verdict import judge

RETURNS = {
    "walker-walk": {"bc": [np.array([400.0, 400.0])], "extracted": [np.array([800.0, 800.0])], "data": [np.array([300.0, 300.0])]},
    "mw-reach": {"bc": [np.array([20.0, 20.0])], "extracted": [np.array([20.0, 20.0])]},
}


def test_score_table_by_hand():
    assert tables.score_table(RETURNS, judge(RETURNS)) == [
        ["task", "extracted", "bc", "data", "extracted vs data", "extracted vs bc"],
        ["walker-walk", "800 [800, 800]", "400 [400, 400]", "300 [300, 300]", "better (+500)", "better (+400)"],
        ["mw-reach", "20.0 [20.0, 20.0]", "20.0 [20.0, 20.0]", "—", "not measured", "equal (+0.00)"],
    ]


def test_summary_ends_with_the_criteria():
    text = tables.summary(RETURNS, RETURNS)
    assert "The extracted policies (not met):" in text
    assert "[not met] beat behaviour cloning on at least 2 of 2 tasks (better on 1: walker-walk)" in text
    assert "[not measured] beat the mean behaviour in the data on every task (not evaluated on mw-reach)" in text
    assert "extracted policies" not in tables.summary({"t": {"pwm": [np.ones(3)]}}, {"t": {"pwm": [np.ones(3)]}})


def test_summary_shows_times_and_published_scores_where_there_are_any():
    scores = {"walker-walk": {"extracted": [np.array([0.8, 0.9])], "mppi": [np.array([0.7, 0.7])]}}
    plain = tables.summary(scores, scores)
    assert "ms per decision" not in plain
    assert "published" not in plain
    assert "P(extracted higher)" in plain
    text = tables.summary(scores, scores, "extracted", {"mppi": DecisionTime(0.05, 10, "cpu")}, "mt30")
    lines = [line.split() for line in text.splitlines()]
    assert ["ms", "per", "decision", "—", "5.00", "—", "—", "—"] in lines
    assert any(line[0] == "walker-walk" and line[-4] == "0.99" for line in lines if line)
    assert "context, not a like-for-like comparison" in " ".join(text.split())
    assert max(len(line) for line in text.splitlines() if line.startswith("The published")) <= 120
