"""Simulated tasks behind the interface of an EnvPool: what evaluation, data collection and the host's online loop step."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from pwm_jax.envs.pool import PoolStep
from pwm_jax.envs.process import EnvWorkerError
from pwm_jax.envs.simulators.make import make_env
from pwm_jax.envs.simulators.pictures import EpisodePictures
from pwm_jax.envs.tasks import TaskSet


class _Group(NamedTuple):
    """The environments of one task: their places [n] in the pool, the Brax environment, its jitted reset and step of all of them."""

    indices: np.ndarray
    env: Any
    reset: Any
    step: Any


class SimulatorPool:
    """N environments of simulated tasks, padded to the task set's sizes, stepped by one compiled program a task in this process.

    An episode is a function of its seed and actions alone. No environment resets by itself.
    """

    def __init__(self, task_set: TaskSet, env_task_ids: Sequence[int] | np.ndarray) -> None:
        """Build the simulators.

        Args:
          task_set: tasks, all simulated, and padded sizes.
          env_task_ids: [N] the task of each environment.

        Raises:
          EnvUnavailableError: a simulator is missing.
        """
        self.task_set, self.env_task_ids = task_set, np.array(env_task_ids, np.int32)
        self._lengths = np.array([task_set.specs[task].episode_length for task in self.env_task_ids])
        self._steps = np.zeros(self.num_envs, np.int64)
        self._obs = np.zeros((self.num_envs, task_set.obs_dim), np.float32)
        self._groups = [self._group(task) for task in np.unique(self.env_task_ids)]
        self._states: list[Any] = [None] * len(self._groups)
        self._pictures: dict[tuple[int, int, int], EpisodePictures] = {}

    def _group(self, task: int) -> _Group:
        env = make_env(self.task_set.names[task])
        return _Group(np.flatnonzero(self.env_task_ids == task), env, *_programs(env))

    @property
    def num_envs(self) -> int:
        """Number of environments N."""
        return len(self.env_task_ids)

    def reset(self, seeds: np.ndarray, indices: np.ndarray | None = None) -> np.ndarray:
        """Start an episode in all environments, or in those of `indices`: padded obs [N, O] float32.

        Args:
          seeds: one for each environment that is reset; the same seed starts the same episode.
          indices: the environments; all if None. The others keep their state and last observation.

        Raises:
          ValueError: seeds and indices that do not fit.
        """
        chosen = np.arange(self.num_envs) if indices is None else np.asarray(indices)
        if np.shape(seeds) != chosen.shape:
            raise ValueError(f"reset needs one seed for each environment: {np.shape(seeds)} seeds for {chosen.shape} environments")
        begins, seed = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, np.uint32)
        begins[chosen], seed[chosen] = True, seeds
        self._steps[begins] = 0
        for number, group in enumerate(self._groups):
            mine = begins[group.indices]
            if not mine.any():
                continue
            fresh = group.reset(seed[group.indices])
            self._states[number] = fresh if self._states[number] is None else _merge(fresh, self._states[number], mine)
            self._read(number)
        return self._obs.copy()

    def _read(self, number: int) -> None:
        group = self._groups[number]
        obs = np.asarray(self._states[number].obs)
        self._obs[group.indices, : obs.shape[1]] = obs

    def step(self, action: np.ndarray, active: np.ndarray | None = None) -> PoolStep:
        """Take one agent step.

        Args:
          action: [N, A] padded; only the native part reaches an environment, clipped to [-1, 1].
          active: [N] bool, the environments to step; all if None. The others keep their observation, with reward 0 and flags False.

        Raises:
          ValueError: wrong shapes, or an action of an active environment that is not finite.
        """
        values, mask = np.asarray(action, np.float32), np.ones(self.num_envs, bool) if active is None else np.asarray(active, bool)
        if values.shape != (self.num_envs, self.task_set.action_dim) or mask.shape != (self.num_envs,):
            raise ValueError(f"actions {values.shape} and active {mask.shape} do not fit {self.num_envs} environments")
        if not np.isfinite(values[mask]).all():
            raise ValueError("actions that are not finite: check the policy's parameters")
        reward, terminated = np.zeros(self.num_envs, np.float32), np.zeros(self.num_envs, bool)
        for number, group in enumerate(self._groups):
            mine = mask[group.indices]
            if not mine.any():
                continue
            native = self.task_set.specs[self.env_task_ids[group.indices[0]]].action_dim
            stepped = group.step(self._states[number], np.clip(values[group.indices, :native], -1.0, 1.0))
            self._states[number] = _merge(stepped, self._states[number], mine)
            reward[group.indices] = np.where(mine, stepped.reward, 0.0)
            terminated[group.indices] = mine & (np.asarray(stepped.done) > 0)
            self._read(number)
        self._steps += mask
        truncated = mask & ~terminated & (self._steps >= self._lengths)
        return PoolStep(self._obs.copy(), reward, terminated, truncated, np.zeros(self.num_envs, np.float32))

    def expert_action(self, active: np.ndarray | None = None) -> np.ndarray:
        """Raise EnvWorkerError: simulated tasks have no scripted experts."""
        raise EnvWorkerError(f"no scripted expert for {', '.join(self.task_set.names)}: collect from random actions or policies")

    def render(self, indices: Sequence[int], height: int = 200, width: int = 200) -> list[np.ndarray]:
        """Pictures [height, width, 3] uint8 of the environments of `indices`; schematic ones where no OpenGL works."""
        return [self._picture(int(index), height, width) for index in indices]

    def _picture(self, index: int, height: int, width: int) -> np.ndarray:
        number, row = next((n, int(np.flatnonzero(g.indices == index)[0])) for n, g in enumerate(self._groups) if index in g.indices)
        at = (number, height, width)
        if at not in self._pictures:
            self._pictures[at] = EpisodePictures(self._groups[number].env, height, width)
        return self._pictures[at].take(jax.tree.map(lambda leaf: leaf[row], self._states[number]))

    def close(self) -> None:
        """Free the renderers."""
        for pictures in self._pictures.values():
            pictures.close()
        self._pictures = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@functools.cache
def _programs(env: Any) -> tuple[Any, Any]:
    """The jitted reset (of seeds [n]) and step of many environments."""
    reset = jax.jit(jax.vmap(lambda seed: env.reset(jax.random.key(seed))))
    return reset, jax.jit(jax.vmap(env.step))


@jax.jit
def _merge(new: Any, old: Any, chosen: jax.Array) -> Any:
    """`new` in the rows of `chosen` [n], `old` in the others."""
    return jax.tree.map(lambda a, b: jnp.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)
