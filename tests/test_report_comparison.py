import numpy as np
import pytest

from pwm_jax.report import comparison
from pwm_jax.report.decisions import DecisionTime
from pwm_jax.report.published import PublishedError

# walker-walk is in both published sets, mw-assembly only in mt80 (with a suspect row), cartpole-swingup-sparse has no H=3 row in mt30.
SCORES = {
    "walker-walk": {"mppi": [np.array([0.9, 0.7])], "extracted": [np.array([0.8, 0.8])], "data": [np.array([0.2, 0.4])]},
    "cartpole-swingup-sparse": {"mppi": [np.array([0.2, 0.2])], "extracted": [np.array([0.4, 0.6])]},
}
TIMES = {"mppi": [DecisionTime(0.5, 10, "cpu")], "extracted": [DecisionTime(0.001, 20, "cpu")]}


def test_aggregates_need_every_task():
    mean, iqm = comparison.aggregate_rows(SCORES, ["extracted", "data"])
    assert mean == ["mean score", "0.65 [0.60, 0.70]", "—"]
    assert iqm[0] == "IQM score"


def test_published_columns_by_hand():
    header, walker, sparse, mean, _ = comparison.published_table(SCORES, "mt30")
    assert header == [
        "task", "extracted", "mppi", "data", "published PWM, H=16§", "published PWM, H=3§", "published TD-MPC2¶",
    ]  # fmt: skip
    assert walker == ["walker-walk", "0.80 [0.80, 0.80]", "0.80 [0.70, 0.90]", "0.30 [0.20, 0.40]", "0.99", "0.99", "0.98 [0.97, 0.98]"]
    assert sparse == ["cartpole-swingup-sparse", "0.50 [0.40, 0.60]", "0.20 [0.20, 0.20]", "—", "0.95", "—", "0.00 [0.00, 0.00]"]
    # (0.98579 + 0.9534) / 2 of PWM, the only H=3 row, (0.97896 + 0.00000) / 2 of TD-MPC2.
    assert [cell.split(" [")[0] for cell in mean] == ["mean score", "0.65", "0.50", "—", "0.97", "0.99 (1 task)", "0.49"]


def test_faulty_rows_are_marked_and_tasks_of_no_set_are_empty():
    scores = {"mw-assembly": {"bc": [np.ones(2)]}, "mw-faucet-close": {"bc": [np.ones(2)]}, "my-own": {"bc": [np.ones(2)]}}
    _, assembly, faucet, own, mean, _ = comparison.published_table(scores, "mt80")
    assert assembly[2:] == ["1.00‡", "1.00‡", "1.00 [1.00, 1.00]"]
    assert faucet[2:4] == ["0.70", "0.50"]
    assert own[2:] == ["—", "—", "—"]
    assert mean[2:4] == ["0.85‡ (2 tasks)", "0.75‡ (2 tasks)"]
    assert not mean[4].endswith("‡ (2 tasks)")
    assert [note[0] for note in comparison.published_notes(scores, "mt80")[2:]] == ["§", "¶", "‡"]
    (_, walker, *_) = comparison.published_table({"walker-walk-backwards": {"bc": [np.ones(2)]}}, "mt30")
    assert walker[2:4] == ["0.98†", "0.98"]


def test_a_set_that_has_none_of_the_tasks_is_refused():
    with pytest.raises(PublishedError, match="mt30 has no published score of mw-assembly"):
        comparison.published_table({"mw-assembly": {"bc": [np.ones(2)]}}, "mt30")


def test_chances_and_times_stand_below():
    chance, decision, call = comparison.rows_below(SCORES, "extracted", TIMES)
    # On walker-walk one of two is above and one below, on the other task both are above.
    assert [cell.split(" [")[0] for cell in chance] == ["P(extracted higher)", "—", "0.75", "—"]
    assert decision == ["ms per decision", "0.0500", "50.0", "—"]
    assert call == ["ms per call", "1.00 for 20 (cpu)", "500 for 10 (cpu)", "—"]
    notes = comparison.notes_below(SCORES, "extracted", TIMES)
    assert [note.split(" ")[0] for note in notes] == ["P(extracted", "A"]


def test_what_is_not_known_has_no_row():
    assert comparison.rows_below({"t": {"data": [np.ones(2)]}}, "extracted", {}) == []
    assert comparison.notes_below({"t": {"data": [np.ones(2)]}}, "extracted", {}) == []


def test_the_protocol_is_told_with_its_number_of_episodes():
    assert "interval, 2 episodes a seed." in comparison.published_notes(SCORES, "mt30")[0]
    uneven = {"walker-walk": {"bc": [np.ones(3), np.ones(10)], "data": [np.ones(500)]}}
    assert "interval, 3 to 10 episodes a seed." in comparison.published_notes(uneven, "mt30")[0]
    recorded = {"walker-walk": {"data": [np.ones(500)]}}
    assert comparison.published_notes(recorded, "mt30")[0].endswith("interval.")
