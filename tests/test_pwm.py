"""The policy half of pwm: imagination, returns, targets, the actor's objective, one update. test_parity.py has the rest."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import (
    AFFINE_MODEL,
    AFFINE_POLICY,
    ENSEMBLE,
    critic_values,
    directional_derivatives,
    encode_starts,
    make_config,
    make_starts,
    network,
    policy_mean,
    policy_state,
    shift_values,
    to_float64,
    world_model_params,
)

from pwm_jax import networks, ops, pwm
from pwm_jax.types import Params, PolicyState, Rollout

actor_loss = jax.jit(pwm.actor_loss, static_argnames="config")
imagine = jax.jit(pwm.imagine, static_argnames="config")
update_policy = jax.jit(pwm.update_policy, static_argnames="config")

ALL_OPTIONS = dict(uncertainty_penalty=0.3, entropy_coef=0.2, behaviour_weight=0.5)
NOISE = jnp.asarray(np.random.default_rng(7).normal(size=(4, 6, 3)), jnp.float32)
MEMBER = jnp.array([0, 1, 1, 0, 1, 0])


@pytest.mark.parametrize("model", [{}, ENSEMBLE, dict(mask_actions=False)], ids=["plain", "ensemble", "unmasked"])
def test_imagination_is_a_loop_of_act_next_and_reward(model: dict[str, Any]) -> None:
    ensemble = dict(uncertainty_penalty=0.7, exploration_bonus=0.4) if model == ENSEMBLE else {}
    config = make_config(model, reward_scale=3.0, **ensemble)
    params, state, starts = world_model_params(config), policy_state(config), make_starts(config)
    z = encode_starts(config, starts)
    rollout = imagine(state.actor_params, params, z, starts.task_id, NOISE, MEMBER, config=config)
    mask = config.model.action_mask[np.asarray(starts.task_id)]
    rewards, spreads = [], []
    for t in range(4):
        np.testing.assert_allclose(rollout.z[t], z, atol=2e-6)
        mean, std = policy_mean(config, state, z)
        action = np.tanh(mean + std * np.asarray(NOISE[t])) * (mask if config.model.mask_actions else 1.0)
        np.testing.assert_allclose(rollout.action[t], action, atol=2e-6)
        candidates = np.asarray(network(config, "next")(params, z, action, starts.task_id))
        rewards.append(3 * network(config, "reward")(params, z, action, starts.task_id))
        discount = np.ones(6)
        if model == ENSEMBLE:
            distance = candidates[0] - candidates[1]
            assert np.abs(distance).max() > 0.01
            spreads.append(np.sqrt(np.square(distance / 2).sum(-1)))  # a standard deviation of two is half their distance
            discount = 1 / (1 + np.exp(network(config, "terminated_logit")(params, z, action, starts.task_id)))
            candidates = np.where(np.asarray(MEMBER)[None, :, None] == 1, candidates[1:], candidates[:1])
        np.testing.assert_allclose(rollout.discount[t], discount, atol=2e-6)
        z = candidates[0]
    expected = np.stack(rewards)
    if model == ENSEMBLE:
        expected += 0.4 * np.stack(spreads) / np.mean(spreads) - 0.7 * np.stack(spreads)
    np.testing.assert_allclose(rollout.reward, expected, rtol=5e-6, atol=5e-6)
    np.testing.assert_allclose(rollout.z[4], z, atol=2e-6)
    assert (np.abs(np.asarray(rollout.action)[:, mask == 0]) > 0).any() == (not config.model.mask_actions)


def test_the_program_does_not_grow_with_the_horizon() -> None:
    config = make_config()
    params, state, starts = world_model_params(config), policy_state(config), make_starts(config)

    def size(horizon: int) -> int:
        longer = dataclasses.replace(config, policy=dataclasses.replace(config.policy, horizon=horizon))
        return str(jax.make_jaxpr(lambda key: pwm.update_policy(state, params, starts, key, longer))(jax.random.key(0))).count(" = ")

    assert size(4) == size(12)


def test_acting_masks_the_padding_and_explores_only_with_noise() -> None:
    config = make_config(dict(mask_actions=False))
    params, state, starts = world_model_params(config), policy_state(config), make_starts(config)
    mask = config.model.action_mask[np.asarray(starts.task_id)]
    assert (mask == 0).any()
    mean, std = policy_mean(config, state, encode_starts(config, starts))
    noise = jax.random.normal(jax.random.key(3), mean.shape)
    for given, expected in ((None, mean), (noise, mean + std * noise)):
        action = pwm.act(state.actor_params, params, starts.obs, starts.task_id, config, given)
        np.testing.assert_allclose(action, np.tanh(expected) * mask, atol=2e-6)


def toy_rollout(reward: list[float], discount: list[float]) -> Rollout:
    """One trajectory without latents of interest."""
    column = [jnp.asarray(x, jnp.float32)[:, None] for x in (reward, discount)]
    return Rollout(jnp.zeros((len(reward) + 1, 1, 8)), jnp.zeros((len(reward), 1, 3)), *column)


@pytest.mark.parametrize(("offset", "expected"), [(0, 1 + 0.9 + 0.972 + 0.729 * 4), (1, 1 + 0.9 + 0.972 + 0.6561 * 4)])
def test_imagined_return_by_hand(offset: int, expected: float) -> None:
    config = make_config(bootstrap_power_offset=offset)
    returns = pwm.imagined_return(toy_rollout([1, 2, 3], [0.5, 0.8, 1.0]), jnp.array([10.0]), jnp.array([0.9]), config)
    np.testing.assert_allclose(returns, [expected], rtol=1e-6)


def test_imagined_return_stops_at_a_certain_termination() -> None:
    returns = pwm.imagined_return(toy_rollout([1, 2, 3], [1.0, 0.0, 1.0]), jnp.array([1e6]), jnp.array(0.9), make_config())
    np.testing.assert_allclose(returns, [1 + 0.9 * 2], rtol=1e-6)


@pytest.mark.parametrize("critic_target", ["td_lambda", "one_step"])
def test_critic_targets_use_the_least_critic_of_the_next_latent(critic_target: str) -> None:
    config = make_config(ENSEMBLE, lam=0.8, critic_target=critic_target)
    params, state, starts = world_model_params(config), policy_state(config), make_starts(config)
    rollout = imagine(state.actor_params, params, encode_starts(config, starts), starts.task_id, NOISE, MEMBER, config=config)
    values = np.asarray(critic_values(config, state.critic_params, rollout.z))
    critics = shift_values(state.critic_params, np.median(values, axis=(1, 2)))  # so that each is the least somewhere
    values = np.asarray(critic_values(config, critics, rollout.z), np.float64)
    assert len(np.unique(values.argmin(0))) == 2
    value, reward, discount = values.min(0), np.asarray(rollout.reward), 0.9 * np.asarray(rollout.discount)
    expected = np.zeros((4, 6))
    for t in reversed(range(4)):
        one_step = reward[t] + discount[t] * value[t + 1]
        later = expected[t + 1] if t < 3 else value[4]
        mixed = reward[t] + discount[t] * (0.2 * value[t + 1] + 0.8 * later)
        expected[t] = mixed if critic_target == "td_lambda" else one_step
    np.testing.assert_allclose(pwm.critic_targets(critics, rollout, jnp.full(6, 0.9), config), expected, rtol=1e-5, atol=1e-5)


def test_the_actors_gradient_is_the_true_one() -> None:
    config = make_config(ENSEMBLE, detach_actor_input=False, normalise_returns=False, **ALL_OPTIONS)
    with jax.enable_x64(True):
        params, state, starts, noise = to_float64((world_model_params(config), policy_state(config), make_starts(config), NOISE))

        def loss(actor_params: Params) -> jax.Array:
            return pwm.actor_loss(actor_params, state, params, starts, noise, MEMBER, config)[0]

        compiled = jax.jit(loss)
        pairs = directional_derivatives(compiled, state.actor_params, jax.jit(jax.grad(loss))(state.actor_params))
    assert np.abs(pairs[:, 1]).min() > 1e-5
    np.testing.assert_allclose(pairs[:, 1], pairs[:, 0], rtol=1e-5, atol=1e-9)


def test_returns_are_scaled_by_the_running_deviation_and_options_are_added() -> None:
    config = make_config(ENSEMBLE, **ALL_OPTIONS)
    plain = make_config(ENSEMBLE, uncertainty_penalty=0.3, normalise_returns=False)
    state = policy_state(config)
    state = state.replace(return_moments=ops.init_moments().replace(mean=jnp.float32(3.0), var=jnp.float32(7.0), count=jnp.float32(4.0)))
    arguments = (state.actor_params, state, world_model_params(config), make_starts(config), NOISE, MEMBER)
    loss, (_, returns, _, metrics) = actor_loss(*arguments, config=config)
    np.testing.assert_allclose(actor_loss(*arguments, config=plain)[0], -returns.mean(), rtol=1e-5)
    everything = np.concatenate([3 + np.sqrt(7) * np.array([-1, 1, -1, 1]), returns])  # four values of mean 3 and variance 7
    scaled = -returns.mean() / np.sqrt(everything.var() + 1e-5)
    np.testing.assert_allclose(loss, scaled - 0.2 * metrics["entropy"] + 0.5 * metrics["behaviour_loss"], rtol=1e-4)
    np.testing.assert_allclose(metrics["actor_loss"], loss)
    np.testing.assert_allclose(metrics["imagined_return"], returns.mean(), rtol=1e-6)


def test_critic_loss_is_a_sum_of_separate_regressions() -> None:
    config = make_config()
    params, rng = policy_state(config).critic_params, np.random.default_rng(0)
    z, target = jnp.asarray(rng.normal(size=(7, 8)), jnp.float32), jnp.asarray(rng.normal(size=7), jnp.float32)
    values = np.asarray(networks.critics_of(config).apply({"params": params}, z))
    expected = sum(np.mean((value - np.asarray(target)) ** 2) for value in values)
    np.testing.assert_allclose(pwm.critic_loss(params, z, target, config), expected, rtol=1e-5)


def test_every_latent_is_regressed_once_a_pass() -> None:
    """With linear critics that stand still, on one-hot latents, the momentum of weight i counts the gradients of row i."""
    rows, passes = 12, 3
    still = dict(critic_hidden=(), critic_lr=0.0, final_lr=0.0, critic_clip_norm=1e9, adam_b1=0.999, num_critics=1)
    config = make_config(dict(latent_dim=rows), horizon=2, critic_passes=passes, critic_minibatches=4, **still)
    state = policy_state(config)
    target = jnp.arange(2.0, rows + 2.0)
    fit = jax.jit(lambda key: pwm._fit_critics(state, jnp.eye(rows), target, key, config))
    fitted, loss = fit(jax.random.key(1))
    critic = state.critic_params["critic_0"]["linear_0"]
    error = critic["kernel"][:, 0] + critic["bias"] - target
    np.testing.assert_array_equal(fitted.critic_params["critic_0"]["linear_0"]["kernel"], critic["kernel"])
    np.testing.assert_allclose(loss, jnp.mean(jnp.square(error)), rtol=1e-5)
    momentum = fitted.critic_opt_state[1][0].mu["critic_0"]["linear_0"]["kernel"][:, 0]
    counts = momentum / (0.001 * 2 * error / (rows // 4))
    np.testing.assert_allclose(counts, passes, rtol=0.015)
    other = fit(jax.random.key(2))[0].critic_opt_state[1][0].mu["critic_0"]["linear_0"]["kernel"][:, 0]
    assert np.abs(other - momentum).max() > 0  # another key, another order


def test_an_update_is_a_function_of_key_and_step() -> None:
    config = make_config(AFFINE_MODEL, **AFFINE_POLICY)
    params, state, starts = world_model_params(config), policy_state(config), make_starts(config)
    first, metrics = update_policy(state, params, starts, jax.random.key(0), config=config)
    again, _ = update_policy(state, params, starts, jax.random.key(0), config=config)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first, again))
    for key, step in ((1, 0), (0, 1)):
        _, other = update_policy(state.replace(step=jnp.int32(step)), params, starts, jax.random.key(key), config=config)
        assert other["imagined_return"] != metrics["imagined_return"]
        assert other["critic_loss"] != metrics["critic_loss"]
    assert int(first.step) == 1
    np.testing.assert_allclose(first.return_moments.mean, metrics["imagined_return"], rtol=1e-3)
    assert all(np.isfinite(metric) for metric in metrics.values())


@pytest.mark.parametrize("rate", [1.0, 0.1])
def test_the_averaged_critic(rate: float) -> None:
    config = make_config(AFFINE_MODEL, **AFFINE_POLICY, target_critic=rate)
    params, state, starts = world_model_params(config), policy_state(config), make_starts(config)
    updated, _ = update_policy(state, params, starts, jax.random.key(0), config=config)
    expected = jax.tree.map(lambda new, old: rate * new + (1 - rate) * old, updated.critic_params, state.target_critic_params)
    moved = jax.tree.map(lambda new, old: float(jnp.abs(new - old).max()), updated.critic_params, state.critic_params)
    assert min(jax.tree.leaves(moved)) > 0
    for actual, wanted in zip(jax.tree.leaves(updated.target_critic_params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=0 if rate == 1 else 1e-5, atol=0 if rate == 1 else 1e-6)


def test_a_fresh_target_critic_equals_the_critic() -> None:
    state = pwm.init_policy(make_config(AFFINE_MODEL, **AFFINE_POLICY), jax.random.key(0))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), state.critic_params, state.target_critic_params))


def test_extraction_raises_the_imagined_return_and_learns_its_value() -> None:
    config = make_config(gamma=0.9, actor_lr=1e-2, critic_lr=1e-2, decay_steps=80, critic_passes=4)
    params, starts = world_model_params(config), make_starts(config)

    @jax.jit
    def extract(key: jax.Array) -> dict[str, jax.Array]:
        def iterate(state: PolicyState, _: None) -> tuple[PolicyState, Any]:
            return pwm.update_policy(state, params, starts, key, config)

        return jax.lax.scan(iterate, pwm.init_policy(config, key), None, length=80)[1]

    metrics = extract(jax.random.key(0))
    reward, critic_loss = np.asarray(metrics["imagined_reward"]), np.asarray(metrics["critic_loss"])
    assert reward[-10:].mean() > reward[:3].max() + 0.1
    assert critic_loss[-10:].mean() < 0.2 * critic_loss[:3].mean()
