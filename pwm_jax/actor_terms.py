"""Terms of the actor's loss beyond the paper, off by default."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from pwm_jax.config import Config
from pwm_jax.networks import WorldModel, actor_of, discount_of, state_value
from pwm_jax.types import Params, Rollout, Starts

_MAX_WEIGHT = 20.0  # CRR's clip of exponential weights


def action_entropy(rollout: Rollout, std: Array, task_id: Array, config: Config) -> Array:
    """Mean over steps and batch of the entropy of a = tanh(u), u ~ N(mu, std), up to a constant: sum_i log std_i + log(1 - a_i^2)."""
    mask = jnp.asarray(config.model.action_mask)[task_id]
    return jnp.mean(jnp.sum(mask * (jnp.log(std) + jnp.log1p(1e-6 - jnp.square(rollout.action))), axis=-1))


def behaviour_loss(actor_params: Params, critic_params: Params, wm_params: Params, starts: Starts, config: Config) -> Array:
    """mean w (mask * tanh mu(z_0) - a_data)^2 over the start states.

    A = r(z_0, a) + gamma d V(F(z_0, a)) - V(z_0) of the recorded a, r as the model has it. With `behaviour_filter` `advantage` w is 1
    where A > 0, else 0; with `exponential` w is min(exp((A - mean A) / std A), 20) over its mean, these of the task; with `none` it is 1.
    """
    model, variables = WorldModel(config.model), {"params": wm_params}
    z0 = model.apply(variables, starts.obs, starts.task_id, method="encode")
    condition = lambda z: model.apply(variables, z, starts.task_id, config.policy.task_conditioned, method="policy_input")  # noqa: E731
    mean, _ = actor_of(config).apply({"params": actor_params}, condition(z0))
    action = jnp.tanh(mean) * jnp.asarray(config.model.action_mask)[starts.task_id]
    error = jnp.square(action - starts.action).sum(-1)
    if config.policy.behaviour_filter == "none":
        return error.mean()
    recorded = (variables, z0, starts.action, starts.task_id)
    reward = config.policy.reward_scale * model.apply(*recorded, method="reward")
    discount = discount_of(starts.task_id, config) * model.apply(*recorded, method="survival")
    next_value = state_value(critic_params, condition(model.apply(*recorded, method="next")), config).mean(0)
    advantage = reward + discount * next_value - state_value(critic_params, condition(z0), config)
    if config.policy.behaviour_filter == "advantage":
        weight = (advantage > 0).astype(error.dtype)
    else:
        member = jax.nn.one_hot(starts.task_id, len(config.model.action_dims))
        average = lambda x: (member.T @ x / jnp.maximum(member.sum(0), 1.0))[starts.task_id]  # noqa: E731
        advantage -= average(advantage)
        weight = jnp.minimum(jnp.exp(advantage / (jnp.sqrt(average(jnp.square(advantage))) + 1e-6)), _MAX_WEIGHT)
        weight /= average(weight)
    return jnp.mean(error * jax.lax.stop_gradient(weight))


def behaviour_weight(step: Array, config: Config) -> Array:
    """The term's weight at iteration `step`: behaviour_weight * behaviour_kept^(step / decay_steps)."""
    p = config.policy
    return p.behaviour_weight * p.behaviour_kept ** jnp.minimum(step / max(p.decay_steps, 1), 1.0)
