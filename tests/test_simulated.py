"""Trajectories in a simulator: a loop of its steps, where they are cut, whose gradients they carry, and that policies learn from them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from point_mass import PointMass
from tiny_models import directional_derivatives, make_config, policy_state, to_float64, world_model_params

from pwm_jax import networks, ops, pwm, simulated
from pwm_jax.config import Config
from pwm_jax.networks import WorldModel
from pwm_jax.types import Params, Rollout, SimStarts

SIMULATOR = PointMass(episode_length=4, drift=0.1)
HORIZON, ENVS = 8, 6
ONE_TASK = dict(obs_dim=2, action_dim=2, action_dims=(1,), task_dim=0)


def config_of(dynamics: str, model: dict[str, Any] | None = None, **policy: Any) -> Config:
    options = dict(dynamics=dynamics, horizon=HORIZON, batch_size=ENVS, detach_actor_input=False, gamma=0.9)
    return make_config(ONE_TASK | (model or {}), **options | policy)


def starts_of(simulator: PointMass = SIMULATOR, size: int = ENVS) -> SimStarts:
    task_id = jnp.zeros(size, jnp.int32)
    return SimStarts(simulator=simulator, state=simulator.reset(jax.random.key(1), size), task_id=task_id, key=jax.random.key(2))


def noise_of(config: Config) -> jax.Array:
    return jnp.asarray(3 * np.random.default_rng(3).normal(size=(HORIZON, ENVS, config.model.action_dim)), jnp.float32)


@pytest.mark.parametrize("dynamics", ["simulator", "decoupled"])
def test_a_trajectory_is_a_loop_of_steps_with_its_ends_marked(dynamics: str) -> None:
    config = config_of(dynamics, reward_scale=2.0)
    params, policy, noise, starts = world_model_params(config), policy_state(config), noise_of(config), starts_of()
    rollout, after = jax.jit(simulated.unroll, static_argnames="config")(policy.actor_params, params, starts, noise, config=config)
    read = jax.jit(lambda obs: networks.policy_obs(params, obs, jnp.zeros(ENVS, jnp.int32), config))
    actor = jax.jit(networks.actor_of(config).apply)
    state, ends = starts.state, []
    for t in range(HORIZON):
        np.testing.assert_allclose(rollout.z[t], read(state.obs), atol=1e-5)
        mean, std = actor({"params": policy.actor_params}, read(state.obs))
        action = np.tanh(mean + std * noise[t]) * [1, 0]  # one of two actions is the task's
        np.testing.assert_allclose(rollout.action[t], action, atol=1e-5)
        x = np.asarray(state.physics) + 0.5 * action[:, 0] + 0.1
        np.testing.assert_allclose(rollout.reward[t], -2 * (x - 0.5) ** 2, atol=1e-5)
        fell, late = np.abs(x) > 1, np.asarray(state.steps) == 3
        np.testing.assert_array_equal(rollout.discount[t], 1.0 - fell)
        np.testing.assert_array_equal(rollout.cut[t], fell | late)
        np.testing.assert_allclose(rollout.next_z[t], read(np.stack([x, np.ones_like(x)], -1).astype(np.float32)), atol=1e-5)
        state, _ = SIMULATOR.step(state, jnp.asarray(action, jnp.float32), jax.random.fold_in(starts.key, t))
        ends.append((fell.sum(), (late & ~fell).sum()))
    np.testing.assert_allclose(after.state.physics, state.physics, atol=1e-5)
    np.testing.assert_array_equal(rollout.z[-1], rollout.next_z[-1])
    assert (np.sum(ends, axis=0) > 0).all()  # terminations and truncations both occurred


def test_returns_of_several_episodes_in_one_window_by_hand() -> None:
    column = lambda *x: jnp.asarray(x, jnp.float32)[:, None]  # noqa: E731
    config = config_of("simulator")
    zeros = jnp.zeros((5, 1, 2))
    rollout = Rollout(zeros, zeros[:4], column(1, 2, 3, 4), column(1, 0, 1, 1), zeros[:4], column(0, 1, 1, 0))
    values = column(1e6, 1e6, 10, 20)  # the first is not at an end, the second at a termination, the third at a truncation
    returns = pwm.imagined_return(rollout, values, jnp.array(0.9), config)
    np.testing.assert_allclose(returns, [1 + 0.9 * 2 + (3 + 0.9 * 10) + (4 + 0.9 * 20)], rtol=1e-6)
    targets = ops.lambda_returns(rollout.reward, 0.9 * rollout.discount, values, 1.0, rollout.cut)
    np.testing.assert_allclose(targets[:, 0], [1 + 0.9 * 2, 2, 3 + 9, 4 + 18], rtol=1e-6)


def objective(config: Config, starts: SimStarts, noise: jax.Array, params: Params, state: Any) -> Any:
    member = jnp.zeros(ENVS, jnp.int32)
    return lambda actor_params: pwm.actor_loss(actor_params, state, params, starts, noise, member, config)[0]


def test_the_simulators_gradient_is_the_true_one() -> None:
    config = config_of("simulator", normalise_returns=False)
    with jax.enable_x64(True):
        simulator = PointMass()  # without drift nothing terminates, and returns are smooth
        params, state, noise, starts = to_float64(
            (world_model_params(config), policy_state(config), noise_of(config), starts_of(simulator))
        )
        loss = jax.jit(objective(config, starts, noise * 0.1, params, state))
        pairs = directional_derivatives(loss, state.actor_params, jax.jit(jax.grad(loss))(state.actor_params))
    assert np.abs(pairs[:, 1]).min() > 1e-6
    np.testing.assert_allclose(pairs[:, 1], pairs[:, 0], rtol=1e-5, atol=1e-9)


def test_a_reset_cuts_the_gradient() -> None:
    config = config_of("simulator")
    policy, params, starts = policy_state(config), world_model_params(config), starts_of(PointMass(episode_length=3))

    def late_reward(noise: jax.Array) -> jax.Array:
        rollout, _ = simulated.unroll(policy.actor_params, params, starts, noise, config)
        return rollout.reward[4].sum()

    per_step = np.abs(np.asarray(jax.jit(jax.grad(late_reward))(noise_of(config) * 0.03))).max(axis=(1, 2))
    assert (per_step[3:5] > 1e-6).all()  # the episode of step 4 began at step 3
    assert (np.delete(per_step, [3, 4]) == 0).all()


def test_decoupled_takes_values_from_the_simulator_and_gradients_from_the_model() -> None:
    config = config_of("decoupled", dict(termination_head=True, reward_space="raw"), normalise_returns=False)
    with jax.enable_x64(True):
        everything = (world_model_params(config), policy_state(config), noise_of(config), starts_of())
        params, state, noise, starts = to_float64(everything)
        real, after = simulated.unroll(state.actor_params, params, starts, noise, config)
        member = jnp.zeros(ENVS, jnp.int32)
        rollout = simulated.follow(state.actor_params, params, after.transition, starts.task_id, noise, member, config)
        for name in ("z", "action", "reward", "discount", "next_z", "cut"):
            np.testing.assert_allclose(getattr(rollout, name), getattr(real, name), atol=1e-9, err_msg=name)
        assert rollout.cut.sum() > 0

        # The same trajectory by the model alone, each of whose predictions is shifted by a constant so that it meets the real one.
        model, variables, task_id = WorldModel(config.model), {"params": params}, starts.task_id
        ask = lambda method, z, action: model.apply(variables, z, action, task_id, method=method)  # noqa: E731
        z, action = real.z[:-1], real.action
        shift = real.next_z - ask("next", z, action)[0]
        reward_shift, survival_shift = real.reward - ask("reward", z, action), real.discount - ask("survival", z, action)

        def loss(actor_params: Params) -> jax.Array:
            latent, steps = z[0], []
            for t in range(HORIZON):
                mean, std = networks.actor_of(config).apply({"params": actor_params}, latent)
                chosen = model.apply(variables, jnp.tanh(mean + std * noise[t]), task_id, method="mask")
                next_z = ask("next", latent, chosen)[0] + shift[t]
                steps.append((ask("reward", latent, chosen) + reward_shift[t], ask("survival", latent, chosen) + survival_shift[t], next_z))
                latent = jnp.where(real.cut[t][:, None] > 0, real.z[t + 1], next_z)
            reward, discount, next_z = (jnp.stack(column) for column in zip(*steps, strict=True))
            shifted = Rollout(real.z, real.action, reward, discount, next_z, real.cut)
            values = networks.state_value(state.critic_params, next_z, config)
            return -pwm.imagined_return(shifted, values, jnp.array(0.9), config).mean()

        grads = jax.jit(jax.grad(objective(config, starts, noise, params, state)))(state.actor_params)
        pairs = directional_derivatives(jax.jit(loss), state.actor_params, grads)
    assert np.abs(pairs[:, 1]).min() > 1e-7
    np.testing.assert_allclose(pairs[:, 1], pairs[:, 0], rtol=1e-5, atol=1e-9)


def test_play_is_one_episode_in_each_environment() -> None:
    simulator, key = PointMass(episode_length=4), jax.random.key(5)
    act = lambda obs, _: jnp.where(obs[:, :1] > 0, 1.0, 0.0) * jnp.ones((1, 2))  # noqa: E731
    total, length = jax.jit(lambda: simulated.play(simulator, act, key, 32))()
    x = np.asarray(simulator.reset(jax.random.split(key)[0], 32).physics, np.float64)
    # From x > 0: x + 0.5, x + 1, which terminates. From x <= 0 nothing moves.
    moves = x > 0
    expected = np.where(moves, -(x**2) - (x + 0.5) ** 2, -4 * (x - 0.5) ** 2)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    np.testing.assert_array_equal(length, np.where(moves, 2, 4))
    assert 0 < moves.sum() < 32


def test_shac_finds_the_best_policy_of_a_point_mass() -> None:
    config = config_of("simulator", actor_hidden=(16,), critic_hidden=(16,), actor_lr=1e-2, critic_lr=1e-2, batch_size=32, adam_b2=0.99)
    config = dataclasses.replace(config, policy=dataclasses.replace(config.policy, log_std_init=-3.0, log_std_floor=-4.0))
    simulator = PointMass(episode_length=20, drift=0.05)
    params = world_model_params(config)

    def learn(carry: Any, _: None) -> tuple[Any, None]:
        state, sim = carry
        starts = SimStarts(
            simulator=simulator, state=sim, task_id=jnp.zeros(32, jnp.int32), key=jax.random.fold_in(jax.random.key(9), state.step)
        )
        state, after, _ = pwm.update_policy_in_simulator(state, params, starts, jax.random.key(0), config)
        return (state, after.state), None

    first = (pwm.init_policy(config, jax.random.key(1)), simulator.reset(jax.random.key(3), 32))
    (state, _), _ = jax.jit(lambda carry: jax.lax.scan(learn, carry, None, length=200))(first)
    act = lambda obs, _: pwm.act(state.actor_params, params, obs, jnp.zeros(16, jnp.int32), config)  # noqa: E731
    total, length = jax.jit(lambda: simulated.play(simulator, act, jax.random.key(4), 16))()
    assert (length == 20).all()
    assert total.mean() > -0.05  # staying at the start costs about 5; the best policy loses about 0.002 in its first step


def test_moments_of_observations_are_counted_per_task_and_read_by_the_encoder() -> None:
    config = make_config(dict(normalise_obs=True))
    rng = np.random.default_rng(0)
    params = pwm.init_world_model(config, jax.random.key(0)).params
    task_id = np.array([0, 2, 2, 0, 2])
    batches = [rng.normal(loc=[1, 2, 3, 4, 5], scale=[1, 10, 0.1, 1e-3, 0], size=(3, 5, 5)).astype(np.float32) for _ in range(4)]
    for obs in batches:
        params = jax.jit(networks.count_obs)(params, obs, task_id)
    for task in (0, 2):
        seen = np.concatenate([obs[:, task_id == task].reshape(-1, 5) for obs in batches]).astype(np.float64)
        prior = 1e-4 / (len(seen) + 1e-4)  # the weight of mean 0 and variance 1, which an empty stream has
        mean = (1 - prior) * seen.mean(0)
        var = (1 - prior) * (seen.var(0) + (seen.mean(0) - mean) ** 2) + prior * (1 + mean**2)
        np.testing.assert_allclose(params["obs_moments"]["mean"][task], mean, rtol=1e-5)
        np.testing.assert_allclose(params["obs_moments"]["var"][task], var, rtol=1e-4)
    np.testing.assert_array_equal(params["obs_moments"]["mean"][1], 0)
    np.testing.assert_array_equal(params["obs_moments"]["var"][1], 1)
    obs = np.array([[2.0, 12, 3, 4, 5], [2.0, 1e6, 3, 4, 5]], np.float32)
    read = WorldModel(config.model).apply({"params": params}, obs, jnp.array([2, 2]), method="normalised")
    mean, var = params["obs_moments"]["mean"][2], params["obs_moments"]["var"][2]
    np.testing.assert_allclose(read, np.clip((obs - mean) / np.sqrt(var + 1e-5), -10, 10), rtol=1e-5, atol=1e-5)


def test_a_gradient_step_leaves_the_moments_of_observations_alone() -> None:
    from tiny_models import make_batch

    config = make_config(dict(normalise_obs=True))
    state, batch = pwm.init_world_model(config, jax.random.key(0)), make_batch(config)
    after, _ = jax.jit(pwm.update_world_model, static_argnames="config")(state, batch, jax.random.key(1), config=config)
    counted = networks.count_obs(state.params, batch.obs, batch.task_id)["obs_moments"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), after.params["obs_moments"], counted)
