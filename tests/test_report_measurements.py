"""Measured rows on disk: what comes back, what a newer row replaces, and what is refused."""

import dataclasses

import pytest

from pwm_jax.report.measurements import Measurement, by_setting, read_measurements, write_measurements
from pwm_jax.report.records import RecordError, to_line

ROW = Measurement("noise", {"task": "a", "horizon": 4}, {"variance": 1.5, "esnr": None}, "python x.py", "abc", "a machine")


def test_rows_come_back_and_newer_ones_take_the_place_of_older(tmp_path):
    other = dataclasses.replace(ROW, setting={"task": "b", "horizon": 4})
    write_measurements(tmp_path, [ROW, other])
    newer = dataclasses.replace(ROW, values={"variance": 2.0, "esnr": 0.5}, setting={"horizon": 4, "task": "a"})
    write_measurements(tmp_path, [newer])
    assert read_measurements(tmp_path / "noise.jsonl") == [newer, other]
    assert read_measurements(tmp_path / "none.jsonl") == []


def test_rows_are_grouped_in_the_order_they_come():
    rows = [dataclasses.replace(ROW, setting={"task": task, "seed": seed}) for seed in (0, 1) for task in ("b", "a")]
    groups = by_setting(rows, "task")
    assert list(groups) == [("b",), ("a",)]
    assert [row.setting["seed"] for row in groups["b",]] == [0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"study": "other"}, "line 1: study 'other' belongs into other.jsonl"),
        ({"values": {"variance": "large"}}, "values cannot hold {'variance': 'large'}"),
        ({"setting": {}}, "setting must be an object with at least one entry"),
        ({"commit": ""}, "commit must be a non-empty string"),
        ({"seed": 3}, r"missing or unknown keys \['seed'\]"),
    ],
)
def test_damaged_rows_are_refused_with_file_and_line(tmp_path, change, message):
    (tmp_path / "noise.jsonl").write_text(to_line(dataclasses.asdict(ROW) | change))
    with pytest.raises(RecordError, match=message):
        read_measurements(tmp_path / "noise.jsonl")


def test_a_setting_measured_twice_in_a_file_is_refused(tmp_path):
    (tmp_path / "noise.jsonl").write_text(2 * to_line(dataclasses.asdict(ROW)))
    with pytest.raises(RecordError, match="line 2: repeats the setting"):
        read_measurements(tmp_path / "noise.jsonl")
