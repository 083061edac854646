"""Smoothness measures against finite differences, matrices written out, and returns taken one by one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from point_mass import PointMass
from tiny_models import make_config, policy_state, world_model_params

from pwm_jax.analysis import smoothness
from pwm_jax.networks import WorldModel
from pwm_jax.types import Batch, SimStarts, Starts

HORIZON, SIZE = 3, 4
CONFIG = make_config(dict(obs_dim=2, action_dim=1, action_dims=(1,), task_dim=0, reward_space="raw"), detach_actor_input=False, gamma=0.9)
PARAMS, ACTOR = world_model_params(CONFIG), policy_state(CONFIG).actor_params
RNG = np.random.default_rng(0)
NOISE = jnp.asarray(RNG.normal(size=(HORIZON, SIZE, 1)), jnp.float32)
TASK = jnp.zeros(SIZE, jnp.int32)
OBS = jnp.asarray(RNG.normal(size=(HORIZON + 1, SIZE, 2)), jnp.float32)
ACTION = jnp.asarray(RNG.uniform(-1, 1, size=(HORIZON, SIZE, 1)), jnp.float32)
STARTS = Starts(OBS[0], NOISE[0], TASK)


def test_norms_are_those_of_the_jacobians_along_the_rollout() -> None:
    zeros = jnp.zeros((HORIZON, SIZE))
    norms = smoothness.jacobian_norms(PARAMS, Batch(OBS, ACTION, zeros, zeros, TASK), CONFIG)
    model, variables = WorldModel(CONFIG.model), {"params": PARAMS}
    row, task = 2, TASK[2]
    z, chain = model.apply(variables, OBS[0, row], task, method="encode"), np.eye(8)
    for t in range(HORIZON):
        step = lambda state, action: model.apply(variables, state, action, task, method="next")[0]  # noqa: E731
        columns = []
        for k in range(8):
            shift = 1e-2 * jnp.eye(8)[k]
            columns.append(np.asarray(step(z + shift, ACTION[t, row]) - step(z - shift, ACTION[t, row])) / 2e-2)
        by_state = np.stack(columns, 1)
        by_action = np.asarray(step(z, ACTION[t, row] + 1e-2) - step(z, ACTION[t, row] - 1e-2)) / 2e-2
        chain = by_state @ chain
        np.testing.assert_allclose(norms.state[t, row], np.linalg.norm(by_state, 2), rtol=2e-2)
        np.testing.assert_allclose(norms.action[t, row], np.linalg.norm(by_action), rtol=2e-2)
        np.testing.assert_allclose(norms.product[t, row], np.linalg.norm(chain, 2), rtol=5e-2)
        z = step(z, ACTION[t, row])


def test_directions_have_length_one_and_differ() -> None:
    directions = smoothness.random_directions(ACTOR, jax.random.key(0), 3)
    flat = np.concatenate([np.asarray(leaf).reshape(3, -1) for leaf in jax.tree.leaves(directions)], 1)
    np.testing.assert_allclose(np.linalg.norm(flat, axis=1), 1.0, rtol=1e-5)
    assert abs(flat[0] @ flat[1]) < 0.5


def test_the_slope_along_a_direction_is_the_gradient_s_component() -> None:
    key = jax.random.key(1)
    slopes = smoothness.return_lipschitz(ACTOR, PARAMS, STARTS, NOISE, key, CONFIG, length=1e-2, count=4)
    one = lambda params: smoothness.returns_of(jax.tree.map(lambda x: x[None], params), PARAMS, STARTS, NOISE, CONFIG)[0]  # noqa: E731
    gradient, directions = jax.grad(one)(ACTOR), smoothness.random_directions(ACTOR, key, 4)
    expected = sum(jnp.einsum("k...,...->k", d, g) for d, g in zip(jax.tree.leaves(directions), jax.tree.leaves(gradient), strict=True))
    np.testing.assert_allclose(slopes, np.abs(expected), rtol=2e-2, atol=2e-4)


def test_a_landscape_of_the_simulator_holds_the_returns_of_its_policies() -> None:
    simulator = PointMass(episode_length=5, drift=0.1)
    starts = SimStarts(simulator=simulator, state=simulator.reset(jax.random.key(1), SIZE), task_id=TASK, key=jax.random.key(2))
    directions, axis = smoothness.random_directions(ACTOR, jax.random.key(3), 2), jnp.array([-1.0, 0.0, 2.0])
    values = smoothness.landscape(ACTOR, PARAMS, starts, NOISE, directions, axis, CONFIG)
    assert values.shape == (3, 3)
    moved = jax.tree.map(lambda leaf, d: (leaf + 2.0 * d[0] - 1.0 * d[1])[None], ACTOR, directions)
    np.testing.assert_allclose(values[2, 0], smoothness.returns_of(moved, PARAMS, starts, NOISE, CONFIG)[0], rtol=1e-5)
    np.testing.assert_allclose(
        values[1, 1], smoothness.returns_of(jax.tree.map(lambda x: x[None], ACTOR), PARAMS, starts, NOISE, CONFIG)[0], rtol=1e-5
    )
    modelled = smoothness.landscape(ACTOR, PARAMS, STARTS, NOISE, directions, axis, CONFIG)
    assert not np.allclose(modelled, values)
