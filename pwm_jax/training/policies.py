"""A set of policies, one for each (task, seed), updated by one program: what extraction and the online loop share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pwm_jax import ops, pwm
from pwm_jax.config import Config
from pwm_jax.types import AnyArray, Metrics, Params, PolicyState, Starts

SampleStarts = Callable[[jax.Array, jax.Array], Starts]


class PolicySet(NamedTuple):
    """P policies: their task ids [P], seeds [P] and states (every leaf with a leading axis P)."""

    task_id: jax.Array
    seed: jax.Array
    state: PolicyState


def _keys(seed: jax.Array, task_id: jax.Array) -> jax.Array:
    """One key a policy [P], a function of its own seed and task alone, so that it learns the same in any company."""
    return jax.vmap(lambda s, t: jax.random.fold_in(jax.random.key(s), t))(seed, task_id)


def init_policies(config: Config, task_id: AnyArray, seed: AnyArray) -> PolicySet:
    """Fresh policies for task_id [P] with seed [P]."""
    task_id, seed = jnp.asarray(task_id, jnp.int32), jnp.asarray(seed, jnp.uint32)
    return PolicySet(task_id, seed, jax.vmap(lambda key: pwm.init_policy(config, key))(_keys(seed, task_id)))


def update_policies(
    policies: PolicySet, wm_params: Params, sample_starts: SampleStarts, num_updates: int, config: Config, policies_per_batch: int
) -> tuple[PolicySet, Metrics]:
    """`num_updates` iterations of every policy through the shared, frozen model; jit the caller. Metrics are means over them, [P].

    Args:
        sample_starts: (key, task_id) -> start states for the policy of that task.
        policies_per_batch: how many policies are vectorised at a time, see `ops.map_rows`.
    """

    def learn(policy: tuple[jax.Array, jax.Array, PolicyState]) -> tuple[PolicyState, Metrics]:
        key, task_id, state = policy

        def iterate(state: PolicyState, _: None) -> tuple[PolicyState, Metrics]:
            draw_key, update_key = jax.random.split(key)
            starts = sample_starts(jax.random.fold_in(draw_key, state.step), task_id)
            return pwm.update_policy(state, wm_params, starts, update_key, config)

        state, metrics = jax.lax.scan(iterate, state, None, length=num_updates)
        return state, jax.tree.map(lambda x: x.mean(0), metrics)

    rows = (_keys(policies.seed, policies.task_id), policies.task_id, policies.state)
    state, metrics = ops.map_rows(learn, rows, policies_per_batch)
    return policies._replace(state=state), metrics


def act(policies: PolicySet, wm_params: Params, obs: jax.Array, config: Config, noise: jax.Array | None = None) -> jax.Array:
    """Actions [P, E, A] of every policy in its own E environments, obs [P, E, O]; with exploration noise [P, E, A] where given."""

    def one(actor_params: Params, task_id: jax.Array, obs: jax.Array, noise: jax.Array | None) -> jax.Array:
        return pwm.act(actor_params, wm_params, obs, jnp.full(obs.shape[0], task_id), config, noise)

    in_axes = (0, 0, 0, None if noise is None else 0)
    return jax.vmap(one, in_axes=in_axes)(policies.state.actor_params, policies.task_id, obs, noise)


def exploration_noise(policies: PolicySet, key: jax.Array, step: jax.Array, num_envs: int, action_dim: int, longest: int) -> jax.Array:
    """Standard normal noise [P, E, A] for the actions of step `step`, a function of each policy's own seed and task alone.

    Environment e of a policy keeps its noise for so many whole steps as a ladder from 1 to `longest` tells, in equal ratios: slow systems
    answer to slow noise only (arXiv 2005.05719), fast ones also to fast noise, and which one a task is need not be known.
    """
    hold = jnp.asarray(np.rint(np.geomspace(1 if num_envs > 1 else longest, longest, num_envs)), jnp.int32)

    def one(policy_key: jax.Array, env: jax.Array, hold: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(jax.random.fold_in(policy_key, env), step // hold), (action_dim,))

    def ladder(seed: jax.Array, task: jax.Array) -> jax.Array:
        return jax.vmap(one, in_axes=(None, 0, 0))(jax.random.fold_in(jax.random.fold_in(key, seed), task), jnp.arange(num_envs), hold)

    return jax.vmap(ladder)(policies.seed, policies.task_id)
