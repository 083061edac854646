"""Terms of the actor's loss beyond the paper: entropy, and behaviour with its filters and its weight."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import (
    ENSEMBLE,
    critic_values,
    encode_starts,
    make_config,
    make_starts,
    network,
    policy_mean,
    policy_state,
    shift_values,
    world_model_params,
)

from pwm_jax import actor_terms
from pwm_jax.types import Rollout


def test_the_entropy_is_that_of_the_squashed_gaussian() -> None:
    config, points = make_config(), 4000
    mean, std = np.array([0.3, -0.8, 5.0]), np.array([0.5, 0.9, 0.1])
    quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / points) for i in range(points)])
    u = mean + std * quantiles[:, None]
    rollout = Rollout(jnp.zeros((2, points, 8)), jnp.asarray(np.tanh(u), jnp.float32)[None], jnp.zeros((1, points)), jnp.ones((1, points)))
    entropy = actor_terms.action_entropy(rollout, jnp.asarray(std, jnp.float32), jnp.full(points, 2), config)  # the task with two actions
    expected = 0.0
    for i in range(2):
        action = np.linspace(-1, 1, 200_001)[1:-1]
        density = np.exp(-0.5 * ((np.arctanh(action) - mean[i]) / std[i]) ** 2) / (std[i] * math.sqrt(2 * math.pi) * (1 - action**2))
        np.testing.assert_allclose(density.sum() * 1e-5, 1.0, rtol=1e-4)
        expected -= np.sum(density * np.log(np.maximum(density, 1e-300))) * 1e-5
    constant = 2 * 0.5 * math.log(2 * math.pi * math.e)
    np.testing.assert_allclose(entropy + constant, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("behaviour_filter", "options"), [("none", {}), ("advantage", {}), ("advantage", ENSEMBLE), ("exponential", ENSEMBLE)]
)
def test_behaviour_loss_by_hand(behaviour_filter: str, options: dict[str, Any]) -> None:
    config = make_config(options, gamma=0.9, behaviour_filter=behaviour_filter, reward_scale=3.0)
    params, state, starts = world_model_params(config), policy_state(config), make_starts(config)
    z = encode_starts(config, starts)
    mask = config.model.action_mask[np.asarray(starts.task_id)]
    error = np.square(np.tanh(policy_mean(config, state, z)[0]) * mask - np.asarray(starts.action)).sum(-1)
    critics = state.critic_params
    if behaviour_filter != "none":
        inputs = (params, z, starts.action, starts.task_id)
        next_z, reward = network(config, "next")(*inputs), network(config, "reward")(*inputs)
        survival = 1.0 if not options else 1 / (1 + np.exp(np.asarray(network(config, "terminated_logit")(*inputs))))
        next_value = critic_values(config, critics, next_z).min(0).mean(0)
        advantage = np.asarray(3 * reward + 0.9 * survival * next_value - critic_values(config, critics, z).min(0))
    if behaviour_filter == "advantage":
        # Values less by x make the advantage more by (1 - 0.9 survival) x: the x at which each recorded action begins to be kept.
        least = -advantage / (1 - 0.9 * survival)
        shift = float(np.median(least))
        critics, keep = shift_values(critics, np.full(2, shift)), least < shift
        assert keep.sum() == 3
        error = error * keep
    if behaviour_filter == "exponential":
        for task in np.unique(starts.task_id):
            mine = np.flatnonzero(np.asarray(starts.task_id) == task)
            if len(mine) > 1:  # one alone counts as it is
                weight = np.exp(advantage[mine] / advantage[mine].std())
                error[mine] *= weight / weight.mean()
    actual = jax.jit(actor_terms.behaviour_loss, static_argnames="config")(state.actor_params, critics, params, starts, config=config)
    np.testing.assert_allclose(actual, error.mean(), rtol=1e-5)


def test_behaviour_weight_falls_to_what_is_kept_of_it() -> None:
    config = make_config(behaviour_weight=2.0, behaviour_kept=0.25, decay_steps=10)
    weights = [float(actor_terms.behaviour_weight(jnp.array(step), config)) for step in (0, 5, 10, 20)]
    np.testing.assert_allclose(weights, [2.0, 1.0, 0.5, 0.5], rtol=1e-6)
    constant = make_config(behaviour_weight=2.0, decay_steps=0)
    np.testing.assert_allclose(actor_terms.behaviour_weight(jnp.array(7), constant), 2.0)
