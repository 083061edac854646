from types import SimpleNamespace

import numpy as np
import pytest

from pwm_jax.report import episodes
from pwm_jax.report.decisions import DecisionTime, times_of_rows
from pwm_jax.report.records import RecordError
from pwm_jax.report.results import append_results, read_results

SPECS = [SimpleNamespace(name="walker-walk", suite="dm_control"), SimpleNamespace(name="mw-reach", suite="metaworld")]
STATS = SimpleNamespace(
    task_id=np.array([0, 0, 1, 1]),
    episode_return=np.array([100.0, 300.0, 1500.0, 1000.0]),
    success=np.array([0.0, 0.0, 1.0, 0.0]),
    score=np.array([0.1, 0.3, 1.0, 0.0]),
    length=np.array([500, 500, 100, 100]),
)
ORIGIN = {"command": "python x", "commit": "abc", "hardware": "cpu"}


def sample():
    return episodes.episodes_from_stats(STATS, SPECS, "bc", [0, 0, 0, 1])


def test_episodes_of_an_evaluation_survive_the_disk(tmp_path):
    rows = sample()
    assert [(e.task, e.seed, e.episode, e.success) for e in rows] == [
        ("walker-walk", 0, 0, None),
        ("walker-walk", 0, 1, None),
        ("mw-reach", 0, 0, 1.0),
        ("mw-reach", 1, 0, 0.0),
    ]
    path = episodes.write_episodes(tmp_path, "bc", rows)
    assert path == tmp_path / "evaluation" / "bc.jsonl"
    assert episodes.read_episodes(path) == rows


def test_groups_are_runs_by_seed():
    grouped = episodes.group(sample())
    assert [run.tolist() for run in grouped["walker-walk"]["bc"]] == [[100, 300]]
    assert [run.tolist() for run in grouped["mw-reach"]["bc"]] == [[1500], [1000]]
    assert [run.tolist() for run in episodes.group(sample(), "score")["mw-reach"]["bc"]] == [[1], [0]]


def test_published_rows_group_to_the_same_runs(tmp_path):
    rows = episodes.rows_from_episodes("quickstart", sample(), {"bc": 7}, {"bc": 2.0}, ORIGIN)
    append_results(tmp_path, rows)
    back = read_results(tmp_path / "quickstart.jsonl")
    assert [(r.task, r.seed, r.episode_return, r.score, r.success, r.episodes, r.env_steps) for r in back] == [
        ("walker-walk", 0, 200.0, 0.2, None, 2, 7),
        ("mw-reach", 0, 1500.0, 1.0, 1.0, 1, 7),
        ("mw-reach", 1, 1000.0, 0.0, 0.0, 1, 7),
    ]
    for field in ("return", "score"):
        expected, found = episodes.group(sample(), field), episodes.group_rows(back, field)
        assert {t: [r.tolist() for r in m["bc"]] for t, m in found.items()} == {
            t: [r.tolist() for r in m["bc"]] for t, m in expected.items()
        }


def test_published_rows_carry_the_time_per_decision_and_what_they_stand_beside():
    time = DecisionTime(0.002, 4, "cpu")
    rows = episodes.rows_from_episodes("quickstart", sample(), {}, {}, ORIGIN, {"bc": time}, "mt80")
    assert [row.extra["published"] for row in rows] == ["mt80"] * 3
    assert times_of_rows(rows) == {"bc": [time]}
    plain = episodes.rows_from_episodes("quickstart", sample(), {}, {}, ORIGIN, {"mppi": time})
    assert [row.extra.keys() for row in plain] == [{"returns", "scores"}] * 3


def test_foreign_and_damaged_rows_are_named(tmp_path):
    with pytest.raises(RecordError, match="method 'bc' does not belong there"):
        episodes.write_episodes(tmp_path, "random", sample())
    path = tmp_path / "bc.jsonl"
    path.write_text('{"task": "a"}\n')
    with pytest.raises(RecordError, match=r"bc\.jsonl, line 1: missing or unknown keys \['episode'"):
        episodes.read_episodes(path)


def test_an_episode_that_is_not_finite_is_not_written(tmp_path):
    stats = SimpleNamespace(**(vars(STATS) | {"episode_return": np.array([1.0, np.nan, 1.0, 1.0])}))
    with pytest.raises(RecordError, match="not finite"):
        episodes.write_episodes(tmp_path, "bc", episodes.episodes_from_stats(stats, SPECS, "bc"))
    assert not (tmp_path / "evaluation" / "bc.jsonl").exists()
