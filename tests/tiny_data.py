"""A small dataset of two real tasks' sizes with invented linear dynamics, and a model of it that trains in seconds."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pwm_jax import pwm
from pwm_jax.config import Config, ModelConfig, PolicyConfig, WorldModelConfig
from pwm_jax.data.store import Dataset, DatasetWriter, Episode
from pwm_jax.envs.tasks import TaskSet
from pwm_jax.types import WorldModelState

TASKS = TaskSet.from_names("pendulum-swingup,reacher-easy")
STEPS = 12


def make_episode(task_id: int, seed: int, steps: int = STEPS, task_set: TaskSet = TASKS) -> Episode:
    """obs' = 0.9 obs + 0.3 a_0 + small noise, reward = mean obs; the first observation component tells the seed: seed / 100."""
    spec, rng = task_set.specs[task_id], np.random.default_rng((task_id, seed))
    obs = rng.normal(size=(steps + 1, spec.obs_dim)).astype(np.float32)
    action = rng.uniform(-1, 1, (steps, spec.action_dim)).astype(np.float32)
    for t in range(steps):
        obs[t + 1] = 0.9 * obs[t] + 0.3 * action[t, 0] + 0.01 * obs[t + 1]
    obs[:, 0] = seed / 100
    return Episode(task_id, obs, action, obs[1:].mean(1), np.zeros(steps, bool), 0.0, "invented", seed)


def write_dataset(path: Path, episodes: int = 10, task_set: TaskSet = TASKS, steps: int = STEPS) -> Dataset:
    """`episodes` of each task, seeds 0, 1, ... of each."""
    with DatasetWriter(path, task_set, {"made": "for tests"}) as writer:
        for task_id in range(task_set.num_tasks):
            for seed in range(episodes):
                writer.add_episode(make_episode(task_id, seed, steps, task_set))
    return Dataset.open(path)


def make_config(task_set: TaskSet = TASKS, world_model: dict[str, Any] | None = None, **policy: Any) -> Config:
    model = ModelConfig(
        task_set.obs_dim, task_set.action_dim, tuple(spec.action_dim for spec in task_set.specs),
        task_dim=2, enc_hidden=(16,), mlp_hidden=(16, 16), latent_dim=16, num_bins=11, bin_low=-3.0, bin_high=3.0, reward_space="raw",
    )  # fmt: skip
    small = dict(horizon=3, batch_size=8, actor_hidden=(8,), critic_hidden=(8,), num_critics=2, critic_passes=1, critic_minibatches=2)
    return Config(
        model, WorldModelConfig(**{"horizon": 3, "batch_size": 16, "lr": 3e-3, **(world_model or {})}), PolicyConfig(**{**small, **policy})
    )


@functools.cache
def _fresh_model(config: Config, seed: int) -> Any:
    return jax.device_get(jax.jit(lambda key: pwm.init_world_model(config, key))(jax.random.key(seed)))


def fresh_model(config: Config, seed: int = 0) -> WorldModelState:
    """A new copy of the initial world model at each call, since training takes its buffers over."""
    return jax.device_put(_fresh_model(config, seed))


def assert_same(first: Any, second: Any) -> None:
    """Two pytrees are equal bit for bit."""
    one, two = jax.tree_util.tree_flatten_with_path(first)[0], jax.tree.leaves(second)
    assert len(one) == len(two) > 0
    for (path, a), b in zip(one, two, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=jax.tree_util.keystr(path), strict=True)


def differs(first: Any, second: Any) -> bool:
    """Whether any leaf of two pytrees of one structure differs."""
    return any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))
