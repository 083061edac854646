"""Many real environments stepped at once in worker processes, with one message to each worker a time step."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import numpy as np

from pwm_jax.envs import rendering
from pwm_jax.envs.process import EnvWorkerError, WorkerProcess, listed
from pwm_jax.envs.tasks import TaskSet
from pwm_jax.envs.worker import SharedArrays

__all__ = ["EnvPool", "EnvWorkerError", "Pool", "PoolStep"]

_MAX_SEED = 2**32 - 1


class PoolStep(NamedTuple):
    """One agent step of all environments: obs [N, O], the others [N]."""

    obs: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray


def _available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool(Protocol):
    """N environments of a task set behind one interface: an EnvPool, or a SimulatorPool of simulated tasks."""

    task_set: TaskSet
    env_task_ids: np.ndarray

    @property
    def num_envs(self) -> int:
        """Number of environments N."""
        ...

    def reset(self, seeds: np.ndarray, indices: np.ndarray | None = None) -> np.ndarray:
        """Start episodes: padded obs [N, O]."""
        ...

    def step(self, action: np.ndarray, active: np.ndarray | None = None) -> PoolStep:
        """Take one agent step with actions [N, A] in the active environments."""
        ...

    def expert_action(self, active: np.ndarray | None = None) -> np.ndarray:
        """The scripted experts' actions [N, A]."""
        ...

    def render(self, indices: Sequence[int], height: int = 200, width: int = 200) -> list[np.ndarray]:
        """Pictures [height, width, 3] uint8."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...

    def __enter__(self) -> Self:
        """The pool itself, closed at the end of the block."""
        ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the pool."""
        ...


class EnvPool:
    """N environments of a task set, padded to its sizes, in worker processes that keep them built until `close`.

    Results depend on the seeds and actions alone, not on the number of workers. No environment resets by itself.
    """

    def __init__(self, task_set: TaskSet, env_task_ids: Sequence[int] | np.ndarray, num_workers: int | None = None) -> None:
        """Start the workers and build every environment.

        Args:
          task_set: tasks and padded sizes.
          env_task_ids: [N] the task of each environment.
          num_workers: processes; as many as usable CPUs if None, never more than environments.

        Raises:
          ValueError: no environment, a task outside the set, or num_workers below one.
          EnvUnavailableError: a simulator is missing.
          EnvWorkerError: an environment could not be built.
        """
        self.task_set = task_set
        self.env_task_ids = np.array(env_task_ids, np.int32)
        if self.env_task_ids.ndim != 1 or self.env_task_ids.size == 0:
            raise ValueError("an EnvPool needs a list of at least one task id, one for each environment")
        if self.env_task_ids.min() < 0 or self.env_task_ids.max() >= task_set.num_tasks:
            raise ValueError(f"task ids {np.unique(self.env_task_ids).tolist()} are not all in 0 to {task_set.num_tasks - 1}")
        if num_workers is not None and num_workers < 1:
            raise ValueError(f"num_workers is {num_workers}: use at least 1, or None for one a CPU")
        self.num_workers = min(num_workers or _available_cpus(), self.num_envs)
        self._workers: list[WorkerProcess] = []
        self._closed = False
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        shared = {"num_envs": self.num_envs, "obs_dim": self.task_set.obs_dim, "action_dim": self.task_set.action_dim}
        # In memory where the system has a place for that; gone by name as soon as every worker has mapped it.
        handle, path = tempfile.mkstemp(prefix="pwm_jax_pool_", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        os.close(handle)
        try:
            self._shared = SharedArrays.at(path, **shared)
            names = [self.task_set.names[task_id] for task_id in self.env_task_ids]
            for number in range(self.num_workers):
                indices = range(number, self.num_envs, self.num_workers)
                self._workers.append(WorkerProcess(number, indices, [names[index] for index in indices], {"path": path, **shared}))
            self._ask_all({"do": "build"})
        finally:
            os.unlink(path)

    @property
    def num_envs(self) -> int:
        """Number of environments N."""
        return len(self.env_task_ids)

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Process ids of the workers; environment i is in worker i % num_workers."""
        return tuple(worker.process.pid for worker in self._workers)

    def _ask_all(self, *messages: Mapping[str, object]) -> list[bytes]:
        """Send one message to every worker (all the same, or one each), then wait for the answers of all."""
        if self._closed:
            raise EnvWorkerError("this EnvPool is closed: it was closed by hand, or by an earlier failure; build a new one")
        each = messages * len(self._workers) if len(messages) == 1 else messages
        try:
            for worker, message in zip(self._workers, each, strict=True):
                worker.send(message)
            return [worker.receive() for worker in self._workers]
        except BaseException:
            self.close()
            raise

    def reset(self, seeds: np.ndarray, indices: np.ndarray | None = None) -> np.ndarray:
        """Start an episode in all environments, or in those of `indices`: padded obs [N, O] float32.

        Args:
          seeds: one for each environment that is reset, 0 to 2^32 - 1; the same seed starts the same episode.
          indices: the environments; all if None. The others keep their last observation.

        Raises:
          ValueError: seeds and indices that do not fit.
          EnvWorkerError: a worker died or an environment failed.
        """
        chosen = np.arange(self.num_envs) if indices is None else np.asarray(indices)
        values = np.asarray(seeds)
        if values.shape != chosen.shape or chosen.ndim != 1:
            raise ValueError(f"reset needs one seed for each environment: {values.shape} seeds for {chosen.shape} environments")
        if chosen.size and (chosen.min() < 0 or chosen.max() >= self.num_envs):
            raise ValueError(f"environments {chosen.tolist()} are not all in 0 to {self.num_envs - 1}")
        if values.size and (values.min() < 0 or values.max() > _MAX_SEED):
            raise ValueError("seeds of environments are integers from 0 to 2^32 - 1")
        by_env = {int(index): int(seed) for index, seed in zip(chosen, values, strict=True)}
        self._ask_all(
            *({"do": "reset", "seeds": {index: by_env[index] for index in worker.indices if index in by_env}} for worker in self._workers)
        )
        return self._shared.obs.copy()

    def _activate(self, active: np.ndarray | None) -> None:
        mask = np.ones(self.num_envs, bool) if active is None else np.asarray(active, bool)
        if mask.shape != (self.num_envs,):
            raise ValueError(f"active has shape {mask.shape}, not ({self.num_envs},)")
        self._shared.active[:] = mask

    def step(self, action: np.ndarray, active: np.ndarray | None = None) -> PoolStep:
        """Take one agent step.

        Args:
          action: [N, A] padded; only the native part reaches an environment, clipped to [-1, 1].
          active: [N] bool, the environments to step; all if None. The others keep their observation, with reward 0 and flags False.

        Raises:
          ValueError: wrong shapes, or an action of an active environment that is not finite.
          EnvWorkerError: a worker died or an environment failed.
        """
        values = np.asarray(action, np.float32)
        if values.shape != self._shared.action.shape:
            raise ValueError(f"actions have shape {values.shape}, not {self._shared.action.shape}")
        self._activate(active)
        broken = np.flatnonzero(~np.isfinite(values).all(axis=1) & self._shared.active)
        if broken.size:
            tasks = listed(self.task_set.names[self.env_task_ids[index]] for index in broken)
            raise ValueError(f"actions that are not finite for environments {broken.tolist()} ({tasks}): check the policy's parameters")
        shared = self._shared
        shared.action[:] = values
        for output in (shared.reward, shared.success, shared.terminated, shared.truncated):
            output[:] = 0
        self._ask_all({"do": "step"})
        return PoolStep(shared.obs.copy(), shared.reward.copy(), shared.terminated.copy(), shared.truncated.copy(), shared.success.copy())

    def expert_action(self, active: np.ndarray | None = None) -> np.ndarray:
        """The scripted experts' actions [N, A] float32 for the present states, zero-padded; zero where not active.

        Raises:
          EnvWorkerError: an active environment has no scripted expert (only Meta-World has), or a worker died.
        """
        self._activate(active)
        self._shared.expert[:] = 0
        self._ask_all({"do": "expert"})
        return self._shared.expert.copy()

    def render(self, indices: Sequence[int], height: int = 200, width: int = 200) -> list[np.ndarray]:
        """Pictures [height, width, 3] uint8 of the environments of `indices`; schematic ones where no OpenGL works.

        Raises:
          ValueError: an index outside the pool.
          EnvWorkerError: a worker died or its backend failed.
        """
        if any(not 0 <= index < self.num_envs for index in indices):
            raise ValueError(f"environments {list(indices)} are not all in 0 to {self.num_envs - 1}")
        backend = rendering.rendering_available() or rendering.SCHEMATIC
        size = {"height": int(height), "width": int(width), "backend": backend}
        by_worker = [[int(index) for index in indices if index in worker.indices] for worker in self._workers]
        pictures = self._ask_all(*({"do": "render", "indices": chosen, **size} for chosen in by_worker))
        frames: dict[int, np.ndarray] = {}
        for chosen, pixels in zip(by_worker, pictures, strict=True):
            stacked = np.frombuffer(pixels, np.uint8).reshape(len(chosen), height, width, 3)
            frames.update(zip(chosen, stacked, strict=True))
        return [frames[int(index)].copy() for index in indices]

    def close(self) -> None:
        """End the workers; further calls raise EnvWorkerError."""
        self._closed = True
        for worker in self._workers:
            worker.hang_up()
        for worker in self._workers:
            worker.end()
        self._workers = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
