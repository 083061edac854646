"""The planner against a NumPy version of its steps, plan values against a loop, and its bookkeeping over an episode."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import make_config, policy_state, world_model_params

from pwm_jax import tdmpc2
from pwm_jax.baselines.mppi import MPPIConfig, Planner, PolicyGuide, QGuide, _act, plan, plan_value
from pwm_jax.networks import WorldModel, actor_of, critics_of
from pwm_jax.training.policies import PolicySet

SMALL = MPPIConfig(horizon=3, iterations=2, num_samples=16, num_prior=4, num_elites=5)
CONFIG = make_config(model=dict(num_q=2, discounts=(0.9, 0.8, 0.95), q_dropout=0.0), gamma=0.7, reward_scale=3.0)
PARAMS = world_model_params(CONFIG)


class ToyGuide(flax.struct.PyTreeNode):
    """z is a position, an action moves it, the reward is the closeness to a goal; the end is worth its own closeness."""

    goal: jax.Array

    def sample(self, z: jax.Array, task_id: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.clip(0.3 * jax.random.normal(key, z.shape), -1, 1)

    def step(self, z: jax.Array, action: jax.Array, task_id: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        z = z + 0.5 * action
        return z, -jnp.square(z - self.goal).sum(-1), jnp.asarray(0.9)

    def value(self, z: jax.Array, task_id: jax.Array, key: jax.Array) -> jax.Array:
        return -2 * jnp.square(z - self.goal).sum(-1)


def numpy_plan(guide: ToyGuide, z: np.ndarray, mean: np.ndarray, mask: np.ndarray, key: jax.Array, c: MPPIConfig) -> tuple[Any, ...]:
    """Section 5.2 step by step, with the same draws: the elites' first actions and the mean."""
    goal = np.asarray(guide.goal)
    prior_key, improve_key, _ = jax.random.split(key, 3)
    own, state = [], np.tile(z, (c.num_prior, 1))
    for k in jax.random.split(prior_key, c.horizon):
        action = np.clip(0.3 * np.asarray(jax.random.normal(k, state.shape)), -1, 1) * mask
        own.append(action)
        state = state + 0.5 * action
    std = c.max_std * np.tile(mask, (c.horizon, 1))
    for k in jax.random.split(improve_key, c.iterations):
        eps = np.asarray(jax.random.normal(k, (c.horizon, c.num_samples - c.num_prior, len(z))))
        actions = np.concatenate([np.clip(mean[:, None] + std[:, None] * eps, -1, 1), np.stack(own)], axis=1) * mask
        values = np.zeros(c.num_samples)
        for n in range(c.num_samples):
            position = z.copy()
            for h in range(c.horizon):
                position = position + 0.5 * actions[h, n]
                values[n] += 0.9**h * -np.sum((position - goal) ** 2)
            values[n] += 0.9**c.horizon * -2 * np.sum((position - goal) ** 2)
        best = np.argsort(-values)[: c.num_elites]
        weight = np.exp(c.temperature * (values[best] - values[best].max()))
        weight /= weight.sum()
        mean = np.sum(weight[:, None] * actions[:, best], axis=1)
        std = np.sqrt(np.sum(weight[:, None] * (actions[:, best] - mean[:, None]) ** 2, axis=1))
        mean, std = mean * mask, np.clip(std, c.min_std, c.max_std) * mask
    return actions[0, best], mean


def test_a_plan_follows_the_published_steps() -> None:
    guide, mask = ToyGuide(jnp.array([0.8, -0.4, 0.3])), np.array([1.0, 1.0, 0.0])
    z, old = np.array([0.1, 0.2, 0.3]), np.full((3, 3), 0.2) * mask
    chosen = set()
    run = jax.jit(functools.partial(plan, guide, config=SMALL))
    for seed in range(12):
        key = jax.random.key(seed)
        action, mean = run(jnp.asarray(z), jnp.int32(0), jnp.asarray(old), jnp.asarray(mask), key, key)
        elites, expected = numpy_plan(guide, z, old, mask, key, SMALL)
        np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-5)
        distance = np.abs(elites - np.asarray(action)).max(1)
        assert distance.min() < 1e-5
        chosen.add(int(distance.argmin()))
        assert np.all(np.asarray(action)[2] == 0.0)
    assert len(chosen) > 1  # drawn by weight, not always the best


def test_more_rounds_come_closer_to_the_best_plan() -> None:
    """The goal is within one step: the best first action leads there at once."""
    guide = ToyGuide(jnp.array([0.4, -0.3]))
    config = MPPIConfig(horizon=2, iterations=8, num_samples=512)
    arguments = jnp.zeros(2), jnp.int32(0), jnp.zeros((2, 2)), jnp.ones(2), jax.random.key(0), jax.random.key(0)
    _, mean = jax.jit(functools.partial(plan, guide, config=config))(*arguments)
    np.testing.assert_allclose(mean[0], [0.8, -0.6], atol=0.1)


def test_plan_values_of_an_extracted_policy_by_hand() -> None:
    """Rewards in the model's units, the policy's discount, the least critic at the end, without the reward's scale."""
    state = policy_state(CONFIG)
    guide = PolicyGuide(PARAMS, state.actor_params, state.critic_params, CONFIG)
    rng, model, task = np.random.default_rng(0), WorldModel(CONFIG.model), jnp.int32(2)
    z0, actions = jnp.asarray(rng.normal(size=8), jnp.float32), jnp.asarray(rng.uniform(-1, 1, (3, 5, 3)), jnp.float32)
    value = jax.jit(lambda: plan_value(guide, z0, actions, task, jax.random.key(0)))()
    for n in range(5):
        z, total = z0, 0.0
        for h in range(3):
            total += 0.7**h * float(model.apply({"params": PARAMS}, z, actions[h, n], task, method="reward"))
            z = model.apply({"params": PARAMS}, z, actions[h, n], task, method="next")[0]
        total += 0.7**3 * float(critics_of(CONFIG).apply({"params": state.critic_params}, z).min()) / 3.0
        np.testing.assert_allclose(value[n], total, rtol=1e-4)
    mean, std = actor_of(CONFIG).apply({"params": state.actor_params}, z0[None])
    drawn = guide.sample(z0[None], task, jax.random.key(3))
    np.testing.assert_allclose(drawn, jnp.tanh(mean + std * jax.random.normal(jax.random.key(3), mean.shape)), rtol=1e-6)


def test_plan_values_of_q_heads_are_in_the_environments_units() -> None:
    guide, model, task, key = QGuide(PARAMS, CONFIG), WorldModel(CONFIG.model), jnp.int32(1), jax.random.key(4)
    rng = np.random.default_rng(1)
    z0, actions = jnp.asarray(rng.normal(size=8), jnp.float32), jnp.asarray(rng.uniform(-1, 1, (2, 4, 3)), jnp.float32)
    values = jax.jit(lambda: plan_value(guide, z0, actions, task, key))()
    z, total = jnp.tile(z0, (4, 1)), np.zeros(4)
    for h in range(2):
        symlog_reward = np.asarray(model.apply({"params": PARAMS}, z, actions[h], task, method="reward"))
        total += 0.8**h * np.sign(symlog_reward) * np.expm1(np.abs(symlog_reward))
        z = model.apply({"params": PARAMS}, z, actions[h], task, method="next")[0]
    action = tdmpc2.sample_prior(PARAMS, z, task, jax.random.split(key)[0], CONFIG.model).action
    heads = tdmpc2.q_values(PARAMS, PARAMS["q"], z, action, task, CONFIG.model)  # there are two: both are drawn
    np.testing.assert_allclose(values, total + 0.64 * heads.mean(0), rtol=1e-4, atol=1e-4)


@functools.cache
def some_policies() -> PolicySet:
    one = [policy_state(CONFIG, seed) for seed in (0, 10)]
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *one)
    return PolicySet(jnp.array([0, 2], jnp.int32), jnp.array([0, 0], jnp.uint32), state)


def test_a_planner_begins_with_the_last_plan_moved_on() -> None:
    obs = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    task_id = np.array([0, 0, 0, 2, 2, 2])
    planner, key = Planner(PARAMS, CONFIG, SMALL, some_policies()), jax.random.key(0)
    first = planner(obs, task_id, key)
    assert first.shape == (6, 3)
    assert not np.asarray(first)[3:, 2].any()  # task 2 has two actions
    grouped = jnp.asarray(obs).reshape(2, 3, 5), jnp.asarray(task_id, jnp.int32).reshape(2, 3)
    action, mean = _act(some_policies(), PARAMS, *grouped, jnp.zeros((2, 3, 3, 3)), key, CONFIG, SMALL)
    np.testing.assert_array_equal(first, action.reshape(6, 3))
    moved = np.concatenate([np.asarray(mean)[:, :, 1:], np.zeros((2, 3, 1, 3))], axis=2)
    np.testing.assert_array_equal(planner.mean, moved)
    second = planner(obs, task_id, key)
    np.testing.assert_array_equal(second, _act(some_policies(), PARAMS, *grouped, jnp.asarray(moved), key, CONFIG, SMALL)[0].reshape(6, 3))
    assert not np.array_equal(first, second)


def test_environments_in_batches_plan_as_all_at_once() -> None:
    obs, task_id = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 5)), jnp.float32), jnp.array([[0, 1, 2, 1, 0]])
    mean, key = jnp.zeros((1, 5, 3, 3)), jax.random.key(0)
    whole = _act(None, PARAMS, obs, task_id, mean, key, CONFIG, SMALL)
    parts = _act(None, PARAMS, obs, task_id, mean, key, CONFIG, dataclasses.replace(SMALL, envs_per_batch=2))
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_planning_needs_a_guide() -> None:
    config = make_config()
    with pytest.raises(ValueError, match=r"no Q heads to plan with: set mppi\.guide=policy"):
        Planner(world_model_params(config), config, SMALL)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(num_prior=512), "num_samples 512 must be above num_prior 512"),
        (dict(num_elites=600), "at least num_elites 600"),
        (dict(min_std=3.0), r"min_std 3\.0 must be above 0 and at most mppi\.max_std 2\.0"),
        (dict(guide="critic"), r"mppi\.guide must be one of 'policy', 'q'"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MPPIConfig(**changes)
