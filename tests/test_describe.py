from pathlib import Path

import numpy as np
import pytest
from recorded_episodes import TASKS, episode, write

from pwm_jax.data.describe import DataRow, describe, format_table, main
from pwm_jax.data.store import Dataset, DatasetWriter


def mixed(path: Path) -> Dataset:
    with DatasetWriter(path, TASKS, {"seed": 1}) as writer:
        # Returns T (T - 1) / 2: 10, 3, 6; success is odd seeds.
        writer.add_episode(episode(0, 5, 1, source="expert"))
        writer.add_episode(episode(0, 3, 2, source="random"))
        writer.add_episode(episode(0, 4, 3, source="random"))
        writer.add_episode(episode(1, 2, 4, source="random"))
    return Dataset.open(path)


def test_rows_by_task_and_source(tmp_path: Path) -> None:
    assert describe(mixed(tmp_path / "data")) == [
        DataRow("long", "all", 3, 12, pytest.approx(19 / 3), 3.0, 10.0, pytest.approx(2 / 3)),
        DataRow("long", "expert", 1, 5, 10.0, 10.0, 10.0, 1.0),
        DataRow("long", "random", 2, 7, 4.5, 3.0, 6.0, 0.5),
        DataRow("wide", "random", 1, 2, 1.0, 1.0, 1.0, 0.0),
    ]


def test_the_table_is_aligned(tmp_path: Path) -> None:
    lines = format_table(describe(mixed(tmp_path / "data"))).splitlines()
    assert len(lines) == 5
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split() == ["long", "all", "3", "12", "6.3", "3.0", "10.0", "0.67"]


def test_the_command_prints_the_table_or_one_line_of_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixed(tmp_path / "data")
    assert main([str(tmp_path / "data")]) == 0
    out = capsys.readouterr().out
    assert "wide" in out
    assert "4 episodes, 14 steps" in out
    assert "{'seed': 1}" in out
    assert main([str(tmp_path / "nothing")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "does not exist" in captured.err


def test_a_view_is_described_alone(tmp_path: Path) -> None:
    dataset = write(tmp_path / "data", [(0, 3), (1, 2), (0, 4)])
    rows = describe(dataset.select(episode_mask=np.array([False, True, True])))
    assert [(row.task, row.episodes, row.return_mean) for row in rows] == [("long", 1, 6.0), ("wide", 1, 1.0)]
