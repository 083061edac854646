"""Simulated tasks behind the interface of an EnvPool: episodes by seed, rows that wait, ends, padding, pictures."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from experiments import stages
from experiments.settings import ConfigError
from pwm_jax.envs.process import EnvWorkerError
from pwm_jax.envs.simulators.make import make_env
from pwm_jax.envs.simulators.pool import SimulatorPool
from pwm_jax.envs.tasks import TaskSet, UnknownTaskError

TASK = "brax-hopper-spring"
TASKS = TaskSet.from_names([TASK], obs_dim=13, action_dim=4)


@functools.cache
def plain_episode(seed: int) -> tuple[list[np.ndarray], list[float], list[bool]]:
    """Observations, rewards and terminations of an episode in which every joint is pushed one way until the hopper falls."""
    env = make_env(TASK)
    step = jax.jit(env.step)
    state = jax.jit(env.reset)(jax.random.key(seed))
    obs, reward, done = [np.asarray(state.obs)], [], []
    while not (done and done[-1]):
        state = step(state, np.ones(3, np.float32))
        obs.append(np.asarray(state.obs))
        reward.append(float(state.reward))
        done.append(bool(state.done))
    return obs, reward, done


def test_an_episode_is_that_of_the_environment_with_this_seed() -> None:
    obs, reward, done = plain_episode(5)
    push = np.array([[9.0, 9, 9, 7]] * 2, np.float32)  # clipped to [-1, 1]; the fourth component is padding
    with SimulatorPool(TASKS, [0, 0]) as pool:
        seen = pool.reset(np.array([4, 5]))
        for t in range(len(reward)):
            np.testing.assert_allclose(seen[1, :11], obs[t], atol=1e-4)
            np.testing.assert_array_equal(seen[:, 11:], 0)
            first = np.array([t < 3, True])  # the first environment waits after three steps
            waiting = seen[0].copy()
            result = pool.step(push, first)
            np.testing.assert_allclose(result.reward[1], reward[t], atol=1e-3)
            assert result.terminated[1] == done[t]
            seen = result.obs
            if t >= 3:
                np.testing.assert_array_equal(seen[0], waiting)
                assert (result.reward[0], result.terminated[0], result.truncated[0]) == (0, False, False)
        again = pool.reset(np.array([5]), np.array([0]))
        np.testing.assert_allclose(again[0, :11], obs[0], atol=1e-5)
        np.testing.assert_array_equal(again[1], seen[1])
        assert not np.allclose(obs[0], plain_episode(4)[0][0])
        pictures = pool.render([1, 0], 40, 60)
        assert [p.shape for p in pictures] == [(40, 60, 3)] * 2
        assert pictures[0].std() > 1
        assert (pictures[0] != pictures[1]).any()  # fallen, and standing


def test_an_episode_of_full_length_is_truncated() -> None:
    with SimulatorPool(TASKS, [0]) as pool:
        pool.reset(np.array([1]))
        pool._steps[:] = 998
        first, second = (pool.step(np.zeros((1, 4))) for _ in range(2))
    assert (first.truncated[0], second.truncated[0], second.terminated[0]) == (False, True, False)


def test_mistakes_are_named() -> None:
    with SimulatorPool(TASKS, [0]) as pool:
        with pytest.raises(ValueError, match="one seed for each"):
            pool.reset(np.array([1, 2]))
        pool.reset(np.array([1]))
        with pytest.raises(ValueError, match="not finite"):
            pool.step(np.full((1, 4), np.nan))
        with pytest.raises(EnvWorkerError, match="no scripted expert for brax-hopper-spring"):
            pool.expert_action()
    with pytest.raises(UnknownTaskError, match="did you mean 'brax-hopper"):
        TaskSet.from_names(["brax-hoper"])
    with pytest.raises(ConfigError, match=r"simulated tasks \(brax-hopper-spring\) cannot share a task set"):
        stages.make_pool(None, TaskSet.from_names([TASK, "reacher-easy"]), [0, 1])
