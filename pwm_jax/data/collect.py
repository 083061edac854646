"""Collect a dataset from behaviour sources, many environments at once, resumable shard by shard.

Every episode's environment seed and noise derive from (seed, source, task, episode) alone, and a shard holds a fixed run of episodes of
one source and task. A killed collection therefore resumes to the dataset it would have made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from scipy.special import ndtr

from pwm_jax.data.format import Episode, frame_bytes
from pwm_jax.data.store import Dataset
from pwm_jax.data.writer import DatasetWriter
from pwm_jax.envs.pool import Pool
from pwm_jax.envs.tasks import TaskSet
from pwm_jax.types import Policy

_DISK_RESERVE_BYTES = 64 << 20


class NotEnoughDiskSpaceError(OSError):
    """The dataset to collect would not fit on its disk."""


@dataclasses.dataclass(frozen=True)
class Source:
    """One behaviour and how often it acts: `episodes` of each of `tasks` (names; None: all of the set).

    kind "random": uniform actions; "expert": Meta-World's scripted policies; "policy": `policy`. To expert and policy actions Gaussian
    noise is added whose standard deviation goes linearly over the episodes from `noise_min` to `noise_max`, and with probability
    `random_prob` a step takes a uniform action instead. `correlation` in [0, 1) is the correlation of noise and uniform actions from one
    step to the next (a stationary AR(1) process; 0 is white, which explores badly where actions must persist). `name` is what the
    dataset's source column says; give one to tell policies apart.
    """

    kind: Literal["random", "expert", "policy"]
    episodes: int
    tasks: tuple[str, ...] | None = None
    noise_min: float = 0.0
    noise_max: float = 0.0
    random_prob: float = 0.0
    correlation: float = 0.0
    policy: Policy | None = dataclasses.field(default=None, compare=False)
    name: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("random", "expert", "policy"):
            raise ValueError(f"unknown kind of behaviour source {self.kind!r}: use random, expert or policy")
        if (self.kind == "policy") != (self.policy is not None):
            raise ValueError(f"source {self.label!r}: kind 'policy' needs a policy, other kinds take none")
        if self.episodes < 1:
            raise ValueError(f"source {self.label!r}: episodes must be at least 1, got {self.episodes}")
        if not (0.0 <= self.noise_min <= self.noise_max and 0.0 <= self.random_prob <= 1.0 and 0.0 <= self.correlation < 1.0):
            raise ValueError(f"source {self.label!r}: needs 0 <= noise_min <= noise_max, random_prob in [0, 1], correlation in [0, 1)")

    @property
    def label(self) -> str:
        """What the source column of its episodes says."""
        return self.name or self.kind

    def noise_of(self, episode: int) -> float:
        """Standard deviation of the noise of the episode-th episode of a task."""
        share = episode / (self.episodes - 1) if self.episodes > 1 else 0.0
        return self.noise_min + (self.noise_max - self.noise_min) * share

    def recipe(self) -> dict[str, Any]:
        """JSON-able description; a policy is described by the source's name only."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "policy"}


@dataclasses.dataclass(frozen=True)
class _Shard:
    """Episodes `first` .. `first` + `count` - 1 of one source and task."""

    source: int
    task_id: int
    first: int
    count: int


def collect(
    pool: Pool | Callable[[], Pool],
    task_set: TaskSet,
    plan: Sequence[Source],
    path: str | Path,
    seed: int,
    episodes_per_shard: int = 100,
    recipe: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Collect the plan's episodes into the dataset directory `path`, or finish an interrupted collection of the same plan.

    Args:
      pool: environments of `task_set`, at least one of each task of the plan; or what makes the pool, called only when there is work
        and closed at the end. More environments of a task run more of its episodes at once.
      task_set: tasks and padding of the dataset.
      plan: behaviour sources, collected in order.
      path: the dataset's directory.
      seed: of all randomness. Random and expert data depend on it alone; policy data also on how many environments the pool has.
      episodes_per_shard: what a killed run can lose, of each task.
      recipe: further JSON values to store with the recipe (command, commit, policy checkpoints).
      progress: called with (episodes done, episodes in all) after every episode.

    Raises:
      DatasetError: `path` holds another dataset, or is being written.
      NotEnoughDiskSpaceError: the episodes would not fit.
      UnknownTaskError: a source names a task outside the set.
      ValueError: an empty plan, or a task without an environment in the pool.
      FloatingPointError: an environment gave non-finite numbers; names the task, source and episode.
    """
    if not plan:
        raise ValueError("the plan has no behaviour source: give at least one")
    path = Path(path)
    shards = list(_shards(task_set, plan, episodes_per_shard))
    total = sum(shard.count for shard in shards)
    full_recipe = {"seed": seed, "episodes_per_shard": episodes_per_shard, "sources": [s.recipe() for s in plan], **(recipe or {})}
    with DatasetWriter(path, task_set, json.loads(json.dumps(full_recipe)), append=True) as writer:
        done = writer.num_episodes
        remaining = shards[writer.num_shards :]
        _check_disk(path, task_set, remaining)
        if remaining:
            with pool() if callable(pool) else contextlib.nullcontext(pool) as envs:
                _check_pool(envs, task_set, remaining)
                for _, group in itertools.groupby(remaining, key=lambda shard: (shard.source, shard.first)):
                    together = list(group)
                    runner = _Runner(envs, plan[together[0].source], seed, together)
                    for _ in runner.run():
                        done += 1
                        if progress is not None:
                            progress(done, total)
                    for shard in together:
                        for episode in runner.episodes_of(shard):
                            writer.add_episode(episode)
                        writer.flush()
    return Dataset.open(path)


def _shards(task_set: TaskSet, plan: Sequence[Source], episodes_per_shard: int) -> Iterator[_Shard]:
    """Source by source; within a source the first shards of all its tasks, then their second ones, so that all tasks run at once."""
    for number, source in enumerate(plan):
        task_ids = [task_set.index(name) for name in (task_set.names if source.tasks is None else source.tasks)]
        for first in range(0, source.episodes, episodes_per_shard):
            for task_id in task_ids:
                yield _Shard(number, task_id, first, min(episodes_per_shard, source.episodes - first))


def _check_disk(path: Path, task_set: TaskSet, shards: Sequence[_Shard]) -> None:
    frames = sum(shard.count * (task_set.specs[shard.task_id].episode_length + 1) for shard in shards)
    needed = frames * frame_bytes(task_set.obs_dim, task_set.action_dim) + _DISK_RESERVE_BYTES
    free = shutil.disk_usage(path).free
    if frames and free < needed:
        raise NotEnoughDiskSpaceError(
            f"the dataset needs {needed / 2**20:.0f} MiB more at {path}, {free / 2**20:.0f} MiB are free: make room, write elsewhere, "
            "or collect fewer episodes"
        )


def _check_pool(pool: Pool, task_set: TaskSet, shards: Sequence[_Shard]) -> None:
    if pool.task_set != task_set:
        raise ValueError(
            f"the pool runs {list(pool.task_set.names)}, the dataset is of {list(task_set.names)}: build it from the same task set"
        )
    missing = sorted({shard.task_id for shard in shards} - set(pool.env_task_ids.tolist()))
    if missing:
        raise ValueError(f"the pool has no environment of {[task_set.names[task_id] for task_id in missing]}: add one of each")


class _Runner:
    """Runs the episodes of some shards of one source at once: environment j of a task's n takes the shard's episodes j, j + n, ..."""

    def __init__(self, pool: Pool, source: Source, seed: int, shards: Sequence[_Shard]) -> None:
        self._pool, self._source, self._seed = pool, source, seed
        self._key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), shards[0].source), shards[0].first)
        self._source_index = shards[0].source
        self._queues: dict[int, list[int]] = {}
        for shard in shards:
            columns = np.flatnonzero(pool.env_task_ids == shard.task_id)
            for offset, env in enumerate(columns):
                self._queues[int(env)] = list(range(shard.first + offset, shard.first + shard.count, len(columns)))[::-1]
        self._episodes: dict[tuple[int, int], Episode] = {}
        task_set, num_envs = pool.task_set, pool.num_envs
        self._limit = np.array([task_set.specs[task_id].episode_length for task_id in pool.env_task_ids])
        longest = int(self._limit.max())
        self._obs = np.zeros((num_envs, longest + 1, task_set.obs_dim), np.float32)
        self._action = np.zeros((num_envs, longest, task_set.action_dim), np.float32)
        self._reward = np.zeros((num_envs, longest), np.float32)
        self._noise, self._uniform = np.zeros_like(self._action), np.zeros_like(self._action)
        self._use_uniform = np.zeros((num_envs, longest), bool)
        self._time = np.zeros(num_envs, np.int64)
        self._episode = np.full(num_envs, -1)
        self._env_seed = np.zeros(num_envs, np.int64)

    def episodes_of(self, shard: _Shard) -> Iterator[Episode]:
        """The shard's episodes in order, handed over once all have run."""
        return (self._episodes.pop((shard.task_id, episode)) for episode in range(shard.first, shard.first + shard.count))

    def run(self) -> Iterator[None]:
        """Run until every queue is empty; yields after each episode."""
        obs = self._begin(np.flatnonzero([bool(self._queues.get(env)) for env in range(self._pool.num_envs)]))
        for step in itertools.count():
            active = self._episode >= 0
            if not active.any():
                return
            rows = np.flatnonzero(active)
            action = self._act(obs, active, step)
            result = self._pool.step(action, active)
            self._check_finite(rows, result.obs, result.reward)
            time = self._time[rows]
            self._action[rows, time], self._reward[rows, time] = action[rows], result.reward[rows]
            self._obs[rows, time + 1] = result.obs[rows]
            self._time[rows] += 1
            finished = rows[result.terminated[rows] | result.truncated[rows] | (self._time[rows] >= self._limit[rows])]
            for env in finished:
                self._finish(int(env), bool(result.terminated[env]), float(result.success[env]))
                yield
            obs = self._begin(finished) if finished.size else result.obs

    def _begin(self, rows: np.ndarray) -> np.ndarray:
        """Start the next queued episode of each of these environments; those with none left stop."""
        self._episode[rows] = -1
        starting = np.array([env for env in rows if self._queues[env]], np.int64)
        for env in starting:
            self._prepare(int(env), self._queues[int(env)].pop())
        obs = self._pool.reset(self._env_seed[starting], starting)
        self._check_finite(starting, obs, np.zeros(self._pool.num_envs))
        self._obs[starting, 0] = obs[starting]
        return obs

    def _prepare(self, env: int, episode: int) -> None:
        """Draw the episode's seed and noise from (seed, source, task, episode)."""
        spec = self._pool.task_set.specs[self._pool.env_task_ids[env]]
        sequence = np.random.SeedSequence((self._seed, self._source_index, zlib.crc32(spec.name.encode()), episode))
        self._episode[env], self._time[env], self._env_seed[env] = episode, 0, sequence.generate_state(1)[0]
        rng = np.random.default_rng(sequence.spawn(1)[0])
        shape, native = (spec.episode_length, spec.action_dim), np.s_[env, : spec.episode_length, : spec.action_dim]
        self._noise[native] = self._source.noise_of(episode) * correlated_normal(rng, shape, self._source.correlation)
        self._uniform[native] = 2.0 * ndtr(correlated_normal(rng, shape, self._source.correlation)) - 1.0
        self._use_uniform[env, : spec.episode_length] = rng.random(spec.episode_length) < self._source.random_prob

    def _act(self, obs: np.ndarray, active: np.ndarray, step: int) -> np.ndarray:
        every, time = np.arange(self._pool.num_envs), np.minimum(self._time, self._limit - 1)
        uniform = self._uniform[every, time]
        if self._source.kind == "random":
            return uniform
        if self._source.policy is not None:
            base = np.asarray(self._source.policy(obs, self._pool.env_task_ids, jax.random.fold_in(self._key, step)))
        else:
            base = self._pool.expert_action(active)
        mask = self._pool.task_set.action_mask[self._pool.env_task_ids]
        noisy = np.clip(base * mask + self._noise[every, time], -1.0, 1.0)
        return np.where(self._use_uniform[every, time][:, None], uniform, noisy).astype(np.float32)

    def _finish(self, env: int, terminated: bool, success: float) -> None:
        task_id, length, seed = int(self._pool.env_task_ids[env]), int(self._time[env]), int(self._env_seed[env])
        flags = np.zeros(length, bool)
        flags[-1] = terminated
        obs, action, reward = self._obs[env, : length + 1].copy(), self._action[env, :length].copy(), self._reward[env, :length].copy()
        self._episodes[task_id, int(self._episode[env])] = Episode(task_id, obs, action, reward, flags, success, self._source.label, seed)

    def _check_finite(self, rows: np.ndarray, obs: np.ndarray, reward: np.ndarray) -> None:
        bad = rows[~(np.isfinite(obs[rows]).all(axis=1) & np.isfinite(reward[rows]))]
        if bad.size:
            env = bad[0]
            raise FloatingPointError(
                f"non-finite observation or reward from {self._pool.task_set.names[self._pool.env_task_ids[env]]}, source "
                f"{self._source.label!r}, episode {self._episode[env]} (environment seed {self._env_seed[env]}), step {self._time[env]}"
            )


def correlated_normal(rng: np.random.Generator, shape: tuple[int, int], correlation: float) -> np.ndarray:
    """Standard normal noise [T, A] with x_t = c x_{t-1} + sqrt(1 - c^2) e_t along time: every x_t is N(0, 1)."""
    noise = rng.standard_normal(shape)
    if correlation:
        fresh = np.sqrt(1.0 - correlation**2)
        for t in range(1, shape[0]):
            noise[t] = correlation * noise[t - 1] + fresh * noise[t]
    return noise
