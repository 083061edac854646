"""MJX against C MuJoCo, gradients through MJX, and what must hold for them: no loop of unknown length in a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pwm_jax.envs.simulators import make_env


def _loops(jaxpr: Any) -> Iterator[str]:
    """Names of the primitives of a program, and of all programs in it, that loop for a number of times not known before."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "while":
            yield equation.primitive.name
        for inner in jax.core.jaxprs_in_params(equation.params):
            yield from _loops(inner)


def _unroll(env: Any, key: jax.Array, actions: jax.Array) -> Any:
    """States [T] of an episode's first steps, less what belongs to one engine alone."""

    def step(state: Any, action: jax.Array) -> tuple[Any, Any]:
        state = env.step(state, action)
        return state, (state.obs, state.reward, state.done)

    return jax.lax.scan(step, env.reset(key), actions)[1]


def _actions(env: Any, steps: int, batch: tuple[int, ...] = ()) -> jax.Array:
    return jax.random.uniform(jax.random.key(5), (*batch, steps, env.action_size), minval=-1.0, maxval=1.0)


# Joint velocities, the largest of some 10, are the most sensitive numbers; a muscle's length-dependent forces add to rounding.
@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("mjx-quadruped", 5e-3),
        pytest.param("mjx-humanoid", 5e-3, marks=pytest.mark.slow),
        pytest.param("mjx-humanoid-cmu", 1e-2, marks=pytest.mark.slow),
        pytest.param("muscle-legs", 1e-2, marks=pytest.mark.slow),
    ],
)
def test_steps_equal_those_of_c_mujoco(name: str, tolerance: float) -> None:
    env, reference = make_env(name, "mjx"), make_env(name, "mujoco")
    key, actions = jax.random.key(2), _actions(env, 4)
    obs, reward, done = jax.jit(lambda key, actions: _unroll(env, key, actions))(key, actions)
    expected_obs, expected_reward, expected_done = jax.jit(lambda key, actions: _unroll(reference, key, actions))(key, actions)
    # The fixed number of Newton iterations solves as well as C MuJoCo's up to 100, in single precision.
    np.testing.assert_allclose(obs, expected_obs, atol=tolerance, rtol=tolerance)
    np.testing.assert_allclose(reward, expected_reward, atol=tolerance)
    np.testing.assert_array_equal(done, expected_done)


def test_a_batch_is_its_members() -> None:
    env = make_env("mjx-quadruped", "mjx")
    keys, actions = jax.random.split(jax.random.key(2), 2), _actions(env, 4, batch=(2,))
    together = jax.jit(jax.vmap(lambda key, actions: _unroll(env, key, actions)))(keys, actions)
    alone = jax.jit(lambda key, actions: _unroll(env, key, actions))(keys[1], actions[1])
    for one, many in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, many[1], atol=2e-3, rtol=2e-3)
    assert not np.allclose(together[0][0, 0], together[0][1, 0], atol=1e-3)


@pytest.mark.parametrize(
    "name",
    [
        "brax-hopper",
        "brax-ant",
        "brax-humanoid",
        "mjx-quadruped",
        "mjx-humanoid",
        "mjx-humanoid-cmu",
        "muscle-legs",
        "mjx-pendulum-swingup",
        "mjx-cartpole-swingup",
    ],
)
def test_no_loop_of_unknown_length_is_in_a_step(name: str) -> None:
    env = make_env(name, "mjx")
    state = jax.eval_shape(env.reset, jax.random.key(0))
    program = jax.make_jaxpr(env.step)(state, jnp.zeros(env.action_size))
    assert list(_loops(program.jaxpr)) == []


@pytest.mark.parametrize("name", ["mjx-quadruped", pytest.param("mjx-humanoid", marks=pytest.mark.slow)])
def test_gradients_pass_through_sixteen_steps(name: str) -> None:
    env = make_env(name, "mjx")
    key, actions = jax.random.key(2), _actions(env, 16)

    def total_reward(actions: jax.Array) -> jax.Array:
        return jnp.sum(_unroll(env, key, actions)[1])

    gradient = jax.jit(jax.grad(total_reward))(actions)
    assert gradient.shape == actions.shape
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).max(axis=1) > 1e-4).all()
