"""Stages killed at random moments and in the midst of writes, then run to the end: the same files as of a run that was never killed.

By default two kills of an online run (test_end_to_end.py kills two other stages); `python -m pytest -m slow tests/test_kill_resume.py`
kills five stages ten times each, fifty in all.
"""

from pathlib import Path

import killing
import numpy as np
import pytest
from tiny_data import write_dataset

from pwm_jax.data.store import Dataset
from pwm_jax.envs.tasks import TaskSet

LAUNCHERS = {"collect": "collect", "pretrain": "pretrain", "extract": "extract", "online": "online", "sweep": "ablation"}


def prepare(stage: str, parent: Path) -> None:
    """What the stage reads: a dataset, and a world model."""
    tasks = {"pretrain": "pendulum-swingup,mw-reach", "extract": "pendulum-swingup,mw-reach", "sweep": "pendulum-swingup"}
    parent.mkdir()
    if stage in tasks:
        write_dataset(parent / killing.WORKDIR / "dataset", task_set=TaskSet.from_names(tasks[stage]))
    if stage == "extract":
        killing.finish("pretrain", "pretrain", parent)


def kill_and_compare(stage: str, kills: int, tmp_path: Path) -> None:
    """Kill a stage so often, every second time in a write, starting afresh where it ended first."""
    launcher, rng = LAUNCHERS[stage], np.random.default_rng(sum(map(ord, stage)))
    prepare(stage, tmp_path / "whole")
    span = killing.finish(launcher, stage, tmp_path / "whole")
    expected = killing.end_state(tmp_path / "whole" / killing.WORKDIR)
    done, in_writes, runs = 0, 0, 0
    while done < kills:
        parent, runs = tmp_path / f"killed-{runs}", runs + 1
        prepare(stage, parent)
        running = True
        while running and done < kills:
            running, writing = killing.kill(launcher, stage, parent, rng.uniform(0, span / 3), in_write=done % 2 == 0)
            done, in_writes = done + running, in_writes + writing
        killing.finish(launcher, stage, parent)
        found = killing.end_state(parent / killing.WORKDIR)
        assert found.keys() == expected.keys()
        assert [name for name in expected if found[name] != expected[name]] == []
        assert not killing.unfinished(parent / killing.WORKDIR)
        if stage in ("collect", "online"):
            dataset = Dataset.open(parent / killing.WORKDIR / "dataset")
            assert len({episode.obs.tobytes() for episode in dataset.iter_episodes()}) == len(dataset)
    print(f"{stage}: {done} kills, {in_writes} of them in the midst of a write; runs compared: {runs}, of {span:.1f} s")
    assert in_writes > 0


def test_an_online_run_killed_twice_leaves_the_same_files(tmp_path):
    kill_and_compare("online", 2, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("stage", LAUNCHERS)
def test_a_stage_killed_ten_times_leaves_the_same_files(stage, tmp_path):
    kill_and_compare(stage, 10, tmp_path)
