"""Trajectories of a policy in a pure-JAX simulator: differentiated through the simulator itself, or followed by the model's gradients."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from pwm_jax import ops
from pwm_jax.config import Config
from pwm_jax.networks import WorldModel, actor_of, policy_obs
from pwm_jax.types import Params, Rollout, SimStarts, SimState, Simulated, Simulator, Transition


def unroll(actor_params: Params, wm_params: Params, starts: SimStarts, noise: Array, config: Config) -> tuple[Rollout, Simulated]:
    """Roll the policy through the simulator, differentiably where that is; a reset cuts the gradient (SHAC, arXiv 2204.07137).

    a_t = mask * tanh(mu(x_t) + sigma * noise_t), x_t what the policy reads of the real observation; noise [H, N, A].
    """
    p, task_id = config.policy, starts.task_id
    actor, mask = actor_of(config), jnp.asarray(config.model.action_mask)[task_id]

    def advance(state: SimState, step: tuple[Array, Array]) -> tuple[SimState, tuple[Array, Transition]]:
        t, eps = step
        x = policy_obs(wm_params, state.obs, task_id, config)
        mean, std = actor.apply({"params": actor_params}, jax.lax.stop_gradient(x) if p.detach_actor_input else x)
        action = mask * jnp.tanh(mean + std * eps)
        state, transition = starts.simulator.step(state, action, jax.random.fold_in(starts.key, t))
        return state, (x, transition)

    last, (x, transition) = jax.lax.scan(advance, starts.state, (jnp.arange(noise.shape[0]), noise))
    next_z = policy_obs(wm_params, transition.next_obs, task_id, config)
    rollout = Rollout(
        z=jnp.concatenate([x, next_z[-1:]]),
        action=transition.action,
        reward=p.reward_scale * transition.reward,
        discount=1.0 - transition.terminated,
        next_z=next_z,
        cut=jnp.maximum(transition.terminated, transition.truncated),
    )
    return rollout, Simulated(last, transition)


def follow(
    actor_params: Params, wm_params: Params, transition: Transition, task_id: Array, noise: Array, member: Array, config: Config
) -> Rollout:
    """A simulated trajectory in values, the model's rollout in gradients (arXiv 2509.00215).

    z_{t+1} = F(z_t, a_t) + sg(E(o_{t+1}) - F(z_t, a_t)), and so for rewards and terminations; an episode's end cuts the gradient.

    Args:
        transition: [H, N, ...], of the same policy with the same noise [H, N, A].
        member: [N], the dynamics-ensemble member whose gradient each trajectory takes.
    """
    p, m, model, variables = config.policy, config.model, WorldModel(config.model), {"params": wm_params}
    actor = actor_of(config)
    obs_z, target = (policy_obs(wm_params, obs, task_id, config) for obs in (transition.obs, transition.next_obs))
    cut = jnp.maximum(transition.terminated, transition.truncated)
    reward = ops.symlog(transition.reward) if m.reward_head == "two_hot" and m.reward_space == "symlog" else transition.reward
    as_value = lambda predicted, real: predicted + jax.lax.stop_gradient(real - predicted)  # noqa: E731

    def advance(carry: tuple[Array, Array], step: tuple[Array, ...]) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        reached, was_cut = carry
        fresh, real, eps, ends = step
        z = jnp.where(was_cut[:, None] > 0, fresh, reached)
        mean, std = actor.apply({"params": actor_params}, jax.lax.stop_gradient(z) if p.detach_actor_input else z)
        action = model.apply(variables, jnp.tanh(mean + std * eps), task_id, method="mask")
        candidates = model.apply(variables, z, action, task_id, method="next")
        predicted = jnp.take_along_axis(candidates, member[None, :, None], axis=0)[0]
        next_z = as_value(predicted, real)
        return (next_z, ends), (z, action, next_z)

    _, (z, action, next_z) = jax.lax.scan(advance, (obs_z[0], jnp.zeros_like(cut[0])), (obs_z, target, noise, cut))
    predicted = model.apply(variables, z, action, task_id, method="reward")
    survival = model.apply(variables, z, action, task_id, method="survival")
    return Rollout(
        z=jnp.concatenate([z, next_z[-1:]]),
        action=action,
        reward=p.reward_scale * as_value(predicted, reward),
        discount=as_value(survival, 1.0 - transition.terminated),
        next_z=next_z,
        cut=cut,
    )


def play(simulator: Simulator, act: Callable[[Array, Array], Array], key: Array, num_envs: int) -> tuple[Array, Array]:
    """One episode in each of `num_envs` environments: returns and lengths [N].

    Args:
        act: obs [N, O], key -> actions [N, A].
        key: for start states and actions.
    """
    start_key, step_key = jax.random.split(key)

    def running(carry: tuple[SimState, Array, Array, Array]) -> Array:
        return jnp.any(carry[3] > 0)

    def advance(carry: tuple[SimState, Array, Array, Array]) -> tuple[SimState, Array, Array, Array]:
        state, total, length, alive = carry
        act_key, restart_key = jax.random.split(jax.random.fold_in(step_key, length.max()))
        state, transition = simulator.step(state, act(state.obs, act_key), restart_key)
        ended = jnp.maximum(transition.terminated, transition.truncated)
        return state, total + alive * transition.reward, length + alive.astype(jnp.int32), alive * (1.0 - ended)

    zeros = jnp.zeros(num_envs)
    first = (simulator.reset(start_key, num_envs), zeros, zeros.astype(jnp.int32), jnp.ones(num_envs))
    _, total, length, _ = jax.lax.while_loop(running, advance, first)
    return total, length
