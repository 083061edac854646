"""Which episodes each stage uses where a task is left out, in whole or in part."""

from __future__ import annotations

from pathlib import Path

import pytest
from ml_collections import ConfigDict
from recorded_episodes import TASKS, write

from experiments import stages
from pwm_jax.data.store import Dataset

TASK, OTHER, _ = TASKS.names


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "data", [(n % 2, 2) for n in range(40)])
    return tmp_path / "data"


def _config(path: Path, **subset: object) -> ConfigDict:
    return ConfigDict(dict(seed=3, dataset=str(path), subset=subset, pretrain=dict(heldout_fraction=0.2)))


def _frames(dataset: Dataset, task: str) -> set[int]:
    return set(dataset.episodes.frame[dataset.episodes.task_id == TASKS.index(task)].tolist())


@pytest.mark.parametrize(("model_tasks", "of_task", "of_other"), [("all", 10, 20), ("others", 0, 20), ("own", 10, 0)])
def test_models_learn_from_the_tasks_that_they_are_said_to(path: Path, model_tasks: str, of_task: int, of_other: int) -> None:
    config = _config(path, task=TASK, kept=0.5, model_tasks=model_tasks)
    learnt, used = stages.model_data_of(config, path), stages.dataset_of(config, path)
    assert (len(_frames(learnt, TASK)), len(_frames(learnt, OTHER))) == (of_task, of_other)
    assert (len(_frames(used, TASK)), len(_frames(used, OTHER))) == (10, 20)
    assert _frames(learnt, TASK) <= _frames(used, TASK)


def test_the_same_episodes_are_held_out_whatever_is_kept(path: Path) -> None:
    whole = stages.heldout_of(_config(path), path)
    assert (len(_frames(whole, TASK)), len(_frames(whole, OTHER))) == (4, 4)
    for kept, model_tasks in ((0.1, "all"), (0.1, "others"), (0.5, "own"), (0.8, "all")):
        config = _config(path, task=TASK, kept=kept, model_tasks=model_tasks)
        heldout = stages.heldout_of(config, path)
        trained, _ = stages.model_data_of(config, path).split_heldout(0.2, 3)
        assert _frames(heldout, TASK) == _frames(whole, TASK)
        for task in (TASK, OTHER):
            assert not _frames(heldout, task) & _frames(trained, task)
