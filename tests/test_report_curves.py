"""Rows of learning curves: what is written is read, half a last line is dropped, damage is named with its line."""

import dataclasses
import json

import pytest

from pwm_jax.report import curves
from pwm_jax.report.curves import CurveRow
from pwm_jax.report.records import RecordError


def row(seed, env_steps, value=1.5):
    return CurveRow("hopper", "ppo", seed, env_steps, env_steps / 1_000, 2.0, value, 10.0, 4)


ROWS = [row(0, 0), row(0, 500), row(1, 0), row(0, 1_000, 3.0)]


def test_rows_survive_the_file_and_have_the_contract_s_keys(tmp_path):
    path = tmp_path / "curves.jsonl"
    assert curves.read_curves(path) == []
    curves.write_curves(path, ROWS[:3])
    curves.append_curve(path, ROWS[3])
    assert curves.read_curves(path) == ROWS
    keys = {"task", "method", "seed", "env_steps", "wall_s", "compile_s", "return", "length", "episodes"}
    assert set(json.loads(path.read_text().splitlines()[0])) == keys
    with path.open("a") as file:
        file.write('{"task": "hop')
    assert curves.read_curves(path) == ROWS


def test_ends_and_finished_seeds():
    assert curves.last_rows(ROWS) == [ROWS[3], ROWS[2]]
    assert curves.finished_seeds(ROWS, 1_000) == {0}
    assert curves.finished_seeds(ROWS, 0) == {0, 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(env_steps=1_000), "line 2: seed 0 was evaluated after 1000 steps already, now after 1000"),
        (dict(seed=-1), "line 2: seed cannot be -1"),
        (dict(wall_s="5"), "line 2: wall_s cannot be '5'"),
        (dict(episodes=1.5), "line 2: episodes cannot be 1.5"),
        (dict(extra=1), "line 2: missing or unknown keys .'extra'."),
    ],
)
def test_a_damaged_row_is_named(tmp_path, change, message):
    path = tmp_path / "curves.jsonl"
    path.write_text("".join(json.dumps({**dataclasses.replace(ROWS[3]).to_record(), **extra}) + "\n" for extra in ({}, change)))
    with pytest.raises(RecordError, match=message):
        curves.read_curves(path)
