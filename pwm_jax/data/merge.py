"""Put episodes of several datasets into one: tasks matched by name, padding made anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pwm_jax.data.format import DatasetError, Episode
from pwm_jax.data.store import Dataset
from pwm_jax.data.writer import DatasetWriter
from pwm_jax.envs.tasks import TaskSet


@dataclasses.dataclass(frozen=True)
class Part:
    """What to take of one dataset: at most `episodes` of each of `tasks` (names; None: all it shares with the merged set).

    They are spread evenly over the dataset's order, which for a replay is the course of learning.
    """

    dataset: Dataset
    episodes: int
    tasks: tuple[str, ...] | None = None


def merge(parts: Sequence[Part], task_set: TaskSet, path: str | Path, recipe: Any) -> Dataset:
    """Write the parts' episodes, in order, as the dataset directory `path`.

    Raises DatasetError when `path` holds a dataset, or a part has none of its tasks in `task_set`.
    """
    with DatasetWriter(path, task_set, recipe) as writer:
        for part in parts:
            known = [name for name in part.dataset.task_set.names if name in task_set.names and (part.tasks is None or name in part.tasks)]
            if not known:
                raise DatasetError(f"{part.dataset.path} has no episode of the tasks to merge ({', '.join(part.tasks or task_set.names)})")
            for name in known:
                for index in _spread(part, name):
                    writer.add_episode(_moved(part.dataset.episode(int(index)), part.dataset.task_set, task_set))
    return Dataset.open(path)


def _spread(part: Part, name: str) -> np.ndarray:
    mine = np.flatnonzero(part.dataset.episodes.task_id == part.dataset.task_set.index(name))
    count = min(part.episodes, len(mine))
    return mine[np.round(np.linspace(0, len(mine) - 1, count)).astype(int)] if count else mine


def _moved(episode: Episode, source: TaskSet, target: TaskSet) -> Episode:
    """The episode in native dims, under its task's id in the target set."""
    spec = source.specs[episode.task_id]
    return dataclasses.replace(
        episode, task_id=target.index(spec.name), obs=episode.obs[:, : spec.obs_dim], action=episode.action[:, : spec.action_dim]
    )
