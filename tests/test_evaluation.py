"""Evaluation in real environments against episodes stepped by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pwm_jax import envs, evaluation
from pwm_jax.envs.pool import EnvPool
from pwm_jax.envs.tasks import TaskSet
from pwm_jax.evaluation import Evaluation, PolicyOutputError, episode_seeds, evaluate, score
from pwm_jax.types import EpisodeStats

TASKS = TaskSet.from_names(["mw-reach", "cartpole-swingup"])
ENV_TASK_IDS = [0, 1, 0]


@pytest.fixture(scope="module")
def pool() -> Iterator[EnvPool]:
    with EnvPool(TASKS, ENV_TASK_IDS, num_workers=2) as result:
        yield result


@jax.jit
def _noisy(obs: jax.Array, task_id: jax.Array, key: jax.Array) -> jax.Array:
    drift = 0.1 * jnp.tanh(obs[:, :4]) + 0.05 * task_id[:, None]
    return jnp.clip(drift + 0.3 * jax.random.normal(key, drift.shape), -1.0, 1.0)


def test_one_episode_an_environment_as_by_hand(pool: EnvPool) -> None:
    key = jax.random.key(3)
    steps: list[float] = []
    found = evaluate(_noisy, pool, key, seed=11, on_step=steps.append)
    assert len(steps) == found.length.max()
    assert isinstance(found, EpisodeStats)
    seeds = episode_seeds(11, np.array(ENV_TASK_IDS))
    singles = [envs.make(TASKS.names[task_id]) for task_id in ENV_TASK_IDS]
    obs = np.stack([TASKS.pad_obs(env.reset(seed=int(seed))[0], t) for env, seed, t in zip(singles, seeds, ENV_TASK_IDS, strict=True)])
    returns, success = np.zeros(3), np.zeros(3)
    for step in range(500):
        action = np.asarray(_noisy(obs, np.array(ENV_TASK_IDS, np.int32), jax.random.fold_in(key, step)))
        for index, env in enumerate(singles):
            if step >= env.facts.episode_length:
                continue
            native, reward, _, _, info = env.step(action[index, : env.facts.action_dim])
            obs[index] = TASKS.pad_obs(native, ENV_TASK_IDS[index])
            returns[index] += np.float32(reward)
            success[index] = info["success"]
    np.testing.assert_allclose(found.episode_return, returns, rtol=1e-12)
    np.testing.assert_array_equal(found.length, [100, 500, 100])
    np.testing.assert_array_equal(found.task_id, ENV_TASK_IDS)
    np.testing.assert_array_equal(found.success, success)
    np.testing.assert_allclose(found.score, [success[0], returns[1] / 1000, success[2]])
    assert found.frames == {}


def test_results_repeat_for_a_seed_and_differ_between_seeds(pool: EnvPool) -> None:
    with EnvPool(TASKS, ENV_TASK_IDS, num_workers=1) as other:
        first, again = (evaluate(_noisy, each, jax.random.key(0), seed=5) for each in (pool, other))
    np.testing.assert_array_equal(first.episode_return, again.episode_return)
    assert not np.array_equal(evaluate(_noisy, pool, jax.random.key(0), seed=6).episode_return, first.episode_return)


def test_the_scripted_expert_succeeds() -> None:
    task_set = TaskSet.from_names(["mw-reach", "mw-drawer-close"])
    with EnvPool(task_set, [0, 1, 0, 1], num_workers=2) as pool:
        found = evaluate(lambda obs, task_id, key: pool.expert_action(), pool, jax.random.key(0), seed=0)
    np.testing.assert_array_equal(found.score, 1.0)
    assert found.episode_return.min() > 1000


def test_the_time_of_a_call_is_the_median_without_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    # The clock is read before and after each of 100 calls: the first takes 1000 s, then 3 s and, in less than half of the calls, 9 s.
    durations = [1000.0] + [9.0 if step % 3 == 0 else 3.0 for step in range(99)]
    readings = iter([reading for step, duration in enumerate(durations) for reading in (1e4 * step, 1e4 * step + duration)])
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: next(readings))
    with EnvPool(TASKS, [0, 0], num_workers=1) as pool:
        found = evaluate(lambda obs, task_id, key: np.zeros((2, 4)), pool, jax.random.key(0), seed=0)
    assert found.seconds_per_call == 3.0
    assert next(readings, None) is None


class _Promise:
    """Actions that are there 2 ms after they are asked for, like those of a device that is still computing."""

    def __array__(self, dtype: type | None = None, copy: bool | None = None) -> np.ndarray:
        time.sleep(0.002)
        return np.zeros((3, 4), dtype)


def test_the_time_of_a_call_lasts_until_the_actions_are_there(pool: EnvPool) -> None:
    found = evaluate(lambda obs, task_id, key: cast(np.ndarray, _Promise()), pool, jax.random.key(0), seed=0)
    assert 0.002 <= found.seconds_per_call < 1.0


def test_pictures_of_the_recorded(pool: EnvPool) -> None:
    found: Evaluation = evaluate(_noisy, pool, jax.random.key(0), seed=0, record=[2, 0], record_every=30, height=24, width=32)
    # The first state, those after 30, 60 and 90 steps, and the last one after 100.
    assert {index: frames.shape for index, frames in found.frames.items()} == {2: (5, 24, 32, 3), 0: (5, 24, 32, 3)}
    assert not np.array_equal(found.frames[0][0], found.frames[0][-1])


def test_start_states_do_not_depend_on_what_else_is_in_the_pool() -> None:
    alone = episode_seeds(7, np.array([3, 3, 3]))
    mixed = episode_seeds(7, np.array([0, 3, 1, 3, 0, 3]))
    assert len(set(alone.tolist())) == 3
    np.testing.assert_array_equal(mixed[[1, 3, 5]], alone)
    np.testing.assert_array_equal(mixed[[0, 4]], alone[:2])
    assert not np.isin(episode_seeds(8, np.array([3, 3, 3])), alone).any()


def test_scores() -> None:
    task_id = np.array([0, 0, 1])
    found = score(TASKS, task_id, episode_return=np.array([1800.0, 2000.0, 250.0]), success=np.array([0.0, 1.0, 0.0]))
    np.testing.assert_array_equal(found, [0.0, 1.0, 0.25])


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros((3, 3)), r"actions of shape \(3, 3\), not \(3, 4\)"),
        (np.array([[0, 0, 0, 0], [np.inf, 0, 0, 0], [0, 0, 0, 0]]), "not finite on cartpole-swingup"),
    ],
)
def test_unusable_actions_are_named(pool: EnvPool, action: np.ndarray, message: str) -> None:
    with pytest.raises(PolicyOutputError, match=message):
        evaluate(lambda obs, task_id, key: action, pool, jax.random.key(0), seed=0)
