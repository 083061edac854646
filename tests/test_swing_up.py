"""dm_control's swing-up tasks in MJX against dm_control itself."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_control import suite

from pwm_jax.envs.simulators import make_env, make_simulator


def _suite_steps(domain: str, qpos: np.ndarray, qvel: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Observations [T, O] and rewards [T] of dm_control's own task, each action held for two control steps."""
    env: Any = suite.load(domain, "swingup")
    env.reset()
    with env.physics.reset_context():
        env.physics.data.qpos[:], env.physics.data.qvel[:] = qpos, qvel
    obs, rewards = [], []
    for action in actions:
        steps = [env.step(action) for _ in range(2)]
        obs.append(np.concatenate([np.atleast_1d(value) for value in steps[-1].observation.values()]))
        rewards.append(sum(step.reward for step in steps))
    return np.array(obs), np.array(rewards)


@pytest.mark.parametrize(
    ("domain", "qpos", "qvel"),
    [("pendulum", [0.3], [-0.5]), ("pendulum", [2.5], [0.0]), ("cartpole", [0.0, 3.1], [0.0, 0.0]), ("cartpole", [1.6, 3.0], [3.0, 0.4])],
)
def test_motion_observations_and_rewards_are_those_of_dm_control(domain: str, qpos: list[float], qvel: list[float]) -> None:
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (30, 1)).astype(np.float32)
    expected_obs, expected_reward = _suite_steps(domain, np.array(qpos), np.array(qvel), actions)
    env: Any = make_env(f"mjx-{domain}-swingup", "mjx")

    def unroll() -> Any:
        def step(state: Any, action: jax.Array) -> tuple[Any, Any]:
            state = env.step(state, action)
            return state, (state.obs, state.reward)

        begin = env.reset(jax.random.key(0)).replace(pipeline_state=env.pipeline_init(jnp.array(qpos), jnp.array(qvel)))
        return jax.lax.scan(step, begin, actions)[1]

    obs, reward = jax.jit(unroll)()
    np.testing.assert_allclose(obs, expected_obs, atol=5e-4)
    np.testing.assert_allclose(reward, expected_reward, atol=5e-4)
    if qpos[0] == 1.6:
        assert expected_obs[:, 0].max() > 1.8  # the end of the rail was met


@pytest.mark.parametrize("domain", ["pendulum", "cartpole"])
def test_starts_are_those_of_dm_control(domain: str) -> None:
    ours = make_simulator(f"mjx-{domain}-swingup", "mjx").reset(jax.random.key(0), 500).obs
    env: Any = suite.load(domain, "swingup", task_kwargs={"random": 0})
    theirs = np.array([np.concatenate([np.atleast_1d(value) for value in env.reset().observation.values()]) for _ in range(500)])
    spread = np.maximum(theirs.std(0), 1e-4)
    assert np.all(np.abs(np.asarray(ours).mean(0) - theirs.mean(0)) < 0.25 * spread)
    np.testing.assert_allclose(np.asarray(ours).std(0), theirs.std(0), rtol=0.15, atol=1e-4)


@pytest.mark.slow
def test_gradients_through_the_cartpole_are_those_of_finite_differences() -> None:
    env: Any = make_env("mjx-cartpole-swingup", "mjx")
    start = env.reset(jax.random.key(0)).replace(pipeline_state=env.pipeline_init(jnp.array([0.1, 0.4]), jnp.array([0.2, -0.3])))

    def rewards(actions: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda s, a: (lambda n: (n, n.reward))(env.step(s, a)), start, actions)[1].sum()

    actions = jnp.linspace(-0.5, 0.5, 8)[:, None]
    slope = jax.jit(jax.grad(rewards))(actions)[3, 0]
    step, run = 0.05, jax.jit(rewards)
    numeric = (run(actions.at[3].add(step)) - run(actions.at[3].add(-step))) / (2 * step)
    assert slope == pytest.approx(float(numeric), rel=0.05)
    assert abs(float(slope)) > 1e-3
