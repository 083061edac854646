"""Policies in real environments: one deterministic-by-seed episode in every environment of a pool, scored by the real reward.

A policy is known only as `policy(obs [N, O], task_id [N], key) -> action [N, A]`; it is called once a time step for all environments.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from pwm_jax.envs.catalog import META_WORLD
from pwm_jax.envs.pool import Pool
from pwm_jax.envs.tasks import TaskSet
from pwm_jax.types import EpisodeStats, Policy


class PolicyOutputError(ValueError):
    """A policy's actions have the wrong shape or are not finite."""


@dataclasses.dataclass(frozen=True)
class Evaluation(EpisodeStats):
    """Episode results [N] with the pictures of the recorded environments: `frames[i]` [F, height, width, 3] uint8.

    `seconds_per_call` is the median wall time of a policy call, from observations to actions on the host, for all N environments
    together; the first call, which compiles, does not count. NaN where there was no other.
    """

    frames: Mapping[int, np.ndarray]
    seconds_per_call: float


def episode_seeds(seed: int, env_task_ids: np.ndarray) -> np.ndarray:
    """One environment seed [N] uint32 for each environment of a pool.

    The k-th environment of a task gets the same seed whatever else is in the pool, so that methods evaluated with the same
    seed meet the same start states.

    Args:
      seed: 0 or more.
      env_task_ids: [N] the task of each environment.
    """
    occurrence: dict[int, int] = {}
    ranks = []
    for task_id in np.asarray(env_task_ids).tolist():
        ranks.append(occurrence.get(task_id, 0))
        occurrence[task_id] = ranks[-1] + 1
    by_rank = np.random.SeedSequence(seed).generate_state(max(ranks, default=0) + 1)
    return by_rank[np.array(ranks, np.int64)]


def score(task_set: TaskSet, task_id: np.ndarray, episode_return: np.ndarray, success: np.ndarray) -> np.ndarray:
    """Scores [N] in [0, 1]: return / largest return on dm_control, success at the last step on Meta-World.

    Args:
      task_set: what the task_ids refer to.
      task_id: [N].
      episode_return: [N].
      success: [N], of the last step.
    """
    max_return = np.array([spec.max_return for spec in task_set.specs])[task_id]
    by_success = np.array([spec.suite == META_WORLD for spec in task_set.specs])[task_id]
    return np.where(by_success, success, episode_return / max_return)


def _checked(values: np.ndarray, pool: Pool, active: np.ndarray) -> np.ndarray:
    expected = (pool.num_envs, pool.task_set.action_dim)
    if values.shape != expected:
        raise PolicyOutputError(f"the policy returned actions of shape {values.shape}, not {expected}")
    broken = ~np.isfinite(values).all(axis=1) & active
    if broken.any():
        tasks = sorted({pool.task_set.names[task_id] for task_id in pool.env_task_ids[broken]})
        raise PolicyOutputError(f"the policy returned actions that are not finite on {', '.join(tasks)}: its parameters are not usable")
    return values


def evaluate(
    policy: Policy,
    pool: Pool,
    key: jax.Array,
    seed: int,
    record: Sequence[int] = (),
    *,
    record_every: int | Mapping[int, int] = 1,
    height: int = 200,
    width: int = 200,
    on_step: Callable[[float], None] = lambda mean_return: None,
) -> Evaluation:
    """Run one episode in every environment of the pool.

    Args:
      policy: maps obs [N, O], task_id [N] and a key to actions [N, A] in [-1, 1]; finished environments' rows are ignored.
      pool: N environments; reset here.
      key: for the policy; time step t gets `fold_in(key, t)`.
      seed: of the environments' start states, see `episode_seeds`.
      record: environments to take pictures of.
      record_every: agent steps between pictures, of all or by environment; the first and the last state are always taken.
      height: rows of a picture.
      width: columns of a picture.
      on_step: called after every time step with the mean return so far, of finished and unfinished episodes.

    Raises:
      PolicyOutputError: actions of a wrong shape, or not finite.
      EnvWorkerError: a worker of the pool failed.
    """
    num_envs, task_id = pool.num_envs, pool.env_task_ids
    episode_return, success = np.zeros(num_envs), np.zeros(num_envs)
    length = np.zeros(num_envs, np.int64)
    active = np.ones(num_envs, bool)
    frames: dict[int, list[np.ndarray]] = {int(index): [] for index in record}
    every = record_every if isinstance(record_every, Mapping) else dict.fromkeys(frames, record_every)

    def take_pictures(indices: Sequence[int]) -> None:
        for index, picture in zip(indices, pool.render(indices, height, width), strict=True):
            frames[index].append(picture)

    obs = pool.reset(episode_seeds(seed, task_id))
    if frames:
        take_pictures(list(frames))
    step = 0
    call_seconds: list[float] = []
    while active.any():
        step_key = jax.block_until_ready(jax.random.fold_in(key, step))
        start = time.perf_counter()
        action = np.asarray(policy(obs, task_id, step_key), np.float32)
        call_seconds.append(time.perf_counter() - start)
        outcome = pool.step(_checked(action, pool, active), active)
        obs = outcome.obs
        episode_return += outcome.reward
        length += active
        success = np.where(active, outcome.success, success)
        ended = outcome.terminated | outcome.truncated
        step += 1
        due = [index for index in frames if active[index] and (step % every[index] == 0 or ended[index])]
        if due:
            take_pictures(due)
        active &= ~ended
        on_step(float(episode_return.mean()))
    return Evaluation(
        task_id=task_id.copy(),
        episode_return=episode_return,
        success=success,
        score=score(pool.task_set, task_id, episode_return, success),
        length=length,
        frames={index: np.stack(pictures) for index, pictures in frames.items()},
        seconds_per_call=float(np.median(call_seconds[1:])) if len(call_seconds) > 1 else float("nan"),
    )
