"""Toy episodes whose every number tells where it belongs: obs[t] = (seed, t, ...), action[t] = (t + 0.5) / 1000, reward[t] = t."""

from pathlib import Path

import numpy as np

from pwm_jax.data.store import Dataset, DatasetWriter, Episode
from pwm_jax.envs.tasks import TaskSet
from pwm_jax.types import TaskSpec

TASKS = TaskSet(
    specs=(TaskSpec("long", 0, "toy", 3, 1, 50, 1.0), TaskSpec("wide", 1, "toy", 4, 2, 20, 1.0), TaskSpec("rare", 2, "toy", 2, 1, 30, 1.0)),
    obs_dim=5,
    action_dim=3,
)


def episode(task_id: int, length: int, seed: int, source: str = "random", terminated: bool = False) -> Episode:
    spec = TASKS.specs[task_id]
    obs = np.zeros((length + 1, spec.obs_dim), np.float32)
    obs[:, 0], obs[:, 1] = seed, np.arange(length + 1)
    action = np.repeat((np.arange(length)[:, None] + 0.5) / 1000, spec.action_dim, axis=1).astype(np.float32)
    flags = np.zeros(length, bool)
    flags[-1] = terminated
    return Episode(task_id, obs, action, np.arange(length, dtype=np.float32), flags, float(seed % 2), source, seed)


def write(path: Path, lengths: list[tuple[int, int]], shard_frames: int = 1_000_000) -> Dataset:
    """A dataset of (task_id, length) episodes; the position in the list is the seed, odd ones end by termination."""
    with DatasetWriter(path, TASKS, {"made": "for tests"}, shard_frames=shard_frames) as writer:
        for seed, (task_id, length) in enumerate(lengths):
            writer.add_episode(episode(task_id, length, seed, terminated=seed % 2 == 1))
    return Dataset.open(path)
