"""The published scores: against the aggregates that were printed with their files, and with the faults that were found in them."""

import numpy as np
import pytest

from pwm_jax.envs.catalog import MT30, MT80
from pwm_jax.report import published, stats

DM = MT30
MW = MT80[30:]


def values(set_name, method, tasks=MT80):
    rows = published.rows_of(set_name)
    return np.array([rows[task][method].score for task in tasks if method in rows.get(task, {})])


# tasks_and_formats.md 6.3: number of tasks, mean and median over tasks, to three decimals.
AGGREGATES = [
    ("mt30", "pwm", MT80, 30, 0.768, 0.868),
    ("mt30", "tdmpc2", MT80, 30, 0.598, 0.716),
    ("mt30", "pwm-h3", MT80, 29, 0.722, None),
    ("mt80", "pwm", MT80, 80, 0.818, 0.900),
    ("mt80", "tdmpc2", MT80, 80, 0.678, 0.800),
    ("mt80", "pwm-h3", MT80, 77, 0.765, None),
    ("mt80", "pwm", DM, 30, 0.751, 0.859),
    ("mt80", "tdmpc2", DM, 30, 0.394, 0.292),
    ("mt80", "pwm-h3", DM, 27, 0.604, None),
    ("mt80", "pwm", MW, 50, 0.858, 1.0),
    ("mt80", "tdmpc2", MW, 50, 0.848, 0.9),
    ("mt80", "pwm-h3", MW, 50, 0.852, None),
]


@pytest.mark.parametrize(("set_name", "method", "tasks", "count", "mean", "median"), AGGREGATES)
def test_means_and_medians_are_those_printed(set_name, method, tasks, count, mean, median):
    scores = values(set_name, method, tasks)
    assert len(scores) == count
    assert scores.mean() == pytest.approx(mean, abs=5.1e-4)
    assert median is None or np.median(scores) == pytest.approx(median, abs=5.1e-4)


@pytest.mark.parametrize(
    ("set_name", "method", "expected"),
    [("mt30", "pwm", 0.864), ("mt30", "pwm-h3", 0.799), ("mt30", "tdmpc2", 0.681)]
    + [("mt80", "pwm", 0.913), ("mt80", "pwm-h3", 0.869), ("mt80", "tdmpc2", 0.846)],
)
def test_interquartile_means_are_those_printed(set_name, method, expected):
    rows = [row[method].scores for row in published.rows_of(set_name).values() if method in row]
    assert stats.iqm(np.concatenate(rows)) == pytest.approx(expected, abs=5.1e-4)


def test_every_task_of_a_set_has_its_row():
    assert tuple(published.rows_of("mt30")) == tuple(MT30)
    assert tuple(published.rows_of("mt80")) == tuple(MT80)
    for set_name, missing in (
        ("mt30", {"cartpole-swingup-sparse"}),
        ("mt80", {"cartpole-balance", "cartpole-balance-sparse", "cartpole-swingup"}),
    ):
        rows = published.rows_of(set_name)
        assert {task for task, row in rows.items() if "pwm-h3" not in row} == missing
        assert all(row.keys() | {"pwm-h3"} == set(published.TITLES) for row in rows.values())
        assert {(len(row["pwm"].scores), len(row["tdmpc2"].scores)) for row in rows.values()} == {(1, 10)}


def test_scores_are_returns_or_successes():
    for set_name in ("mt30", "mt80"):
        for task, row in published.rows_of(set_name).items():
            for entry in row.values():
                if task in DM:
                    assert entry.score == pytest.approx(entry.episode_return / 1000, abs=1e-5)
                elif len(entry.scores) == 10:
                    assert set(entry.scores) <= {0.0, 1.0}
                else:
                    assert 10 * entry.score == pytest.approx(round(10 * entry.score), abs=1e-4)


def test_faulty_rows_are_the_ones_that_the_numbers_show():
    for set_name in ("mt30", "mt80"):
        for task, row in published.rows_of(set_name).items():
            equal = "pwm-h3" in row and row["pwm"].score == row["pwm-h3"].score
            suspect = task in MW and equal
            copied = (set_name, task) == ("mt30", "walker-walk-backwards")
            assert not copied or row["pwm"].episode_return == row["pwm-h3"].episode_return
            assert row["pwm"].faults == ("copied",) * copied + ("suspect",) * suspect, task
            assert "pwm-h3" not in row or row["pwm-h3"].faults == ("suspect",) * suspect, task
            assert row["tdmpc2"].faults == ()
    rows = published.rows_of("mt80")
    assert sum("suspect" in row["pwm"].faults for row in rows.values()) == 48
    assert published.rows_of("mt30")["walker-walk-backwards"]["pwm"].marks == "†"


def test_the_returns_that_make_successes_suspect():
    rows = published.rows_of("mt80")
    means = {method: np.mean([rows[task][method].episode_return for task in MW]) for method in published.TITLES}
    assert means == pytest.approx({"pwm": 830, "pwm-h3": 1296, "tdmpc2": 1471}, abs=0.51)
    assert rows["mw-assembly"]["pwm"].episode_return == pytest.approx(243, abs=0.51)
    assert rows["mw-assembly"]["tdmpc2"].episode_return == pytest.approx(1670, abs=0.51)


def test_marks_are_explained_where_they_are_shown():
    clean, copied = published.notes("mt30", ["walker-walk"]), published.notes("mt30", ["walker-walk-backwards"])
    assert [note[0] for note in clean[1:]] == ["§", "¶"]
    assert [note[0] for note in copied[1:]] == ["§", "¶", "†"]
    assert [note[0] for note in published.notes("mt80", ["mw-assembly"])[1:]] == ["§", "¶", "‡"]
    assert "all 30 tasks of MT30" in clean[0]
    assert [published.title(method)[-1] for method in published.TITLES] == ["§", "§", "¶"]


def test_scores_come_as_runs_and_only_of_known_tasks():
    scores = published.scores_of("mt30", ["mw-reach", "cartpole-swingup-sparse"])
    assert list(scores) == ["cartpole-swingup-sparse"]
    assert {method: [run.shape for run in runs] for method, runs in scores["cartpole-swingup-sparse"].items()} == {
        "pwm": [(1,)],
        "tdmpc2": [(10,)],
    }


def test_a_set_without_the_tasks_is_refused():
    published.check_tasks("", ["anything"])
    published.check_tasks("mt30", ["walker-walk", "mw-reach"])
    with pytest.raises(published.PublishedError, match="mt30 has no published score of mw-reach, mw-push"):
        published.check_tasks("mt30", ["mw-reach", "mw-push"])
    with pytest.raises(published.PublishedError, match="no published scores of 'mt50'; there are mt30, mt80"):
        published.check_tasks("mt50", ["walker-walk"])
