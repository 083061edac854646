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

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise DatasetError(f"{self.dataset.path}: at least 1 episode of each task is taken, not {self.episodes}")


def merge(parts: Sequence[Part], task_set: TaskSet, path: str | Path, recipe: Any) -> Dataset:
    """Write the parts' episodes, in order, as the dataset directory `path`.

    Raises DatasetError, before anything is written, when `path` holds a dataset, a part names a task that it or the merged set lacks,
    or a part shares none with the set.
    """
    chosen = [_chosen(part, task_set) for part in parts]
    with DatasetWriter(path, task_set, recipe) as writer:
        for part, names in zip(parts, chosen, strict=True):
            for name in names:
                for index in _spread(part, name):
                    writer.add_episode(_moved(part.dataset.episode(int(index)), part.dataset.task_set, task_set))
    return Dataset.open(path)


def _chosen(part: Part, task_set: TaskSet) -> list[str]:
    """The part's tasks to merge, in its own order; each has an episode in it."""
    present = {part.dataset.task_set.names[task] for task in np.unique(part.dataset.episodes.task_id)}
    shared = [name for name in part.dataset.task_set.names if name in present and name in task_set.names]
    lacking = [name for name in part.tasks or () if name not in shared]
    if lacking or not shared:
        raise DatasetError(
            f"{part.dataset.path} has no episode of {', '.join(lacking or task_set.names)} to merge; tasks that it shares with the merged "
            f"set: {', '.join(shared) or 'none'}"
        )
    return [name for name in shared if part.tasks is None or name in part.tasks]


def _spread(part: Part, name: str) -> np.ndarray:
    mine = np.flatnonzero(part.dataset.episodes.task_id == part.dataset.task_set.index(name))
    return mine[np.round(np.linspace(0, len(mine) - 1, min(part.episodes, len(mine)))).astype(int)]


def _moved(episode: Episode, source: TaskSet, target: TaskSet) -> Episode:
    """The episode in native dims, under its task's id in the target set."""
    spec = source.specs[episode.task_id]
    return dataclasses.replace(
        episode, task_id=target.index(spec.name), obs=episode.obs[:, : spec.obs_dim], action=episode.action[:, : spec.action_dim]
    )
