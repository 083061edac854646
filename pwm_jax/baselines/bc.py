"""Behaviour cloning: for each task and seed an MLP from normalised observations to recorded actions, the floor of offline methods."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from pwm_jax import ops
from pwm_jax.config import check_fields
from pwm_jax.data.sample import DeviceDataset
from pwm_jax.networks import Actor
from pwm_jax.types import Metrics, Params, Policy


@dataclasses.dataclass(frozen=True)
class BCConfig:
    """A BC run, in gradient steps: the actor's MLP on squared error, Adam with a rate that falls linearly to zero."""

    steps: int = 10_000
    log_every: int = 500
    batch_size: int = 256
    hidden: tuple[int, ...] = (400, 200, 100)
    lr: float = 1e-3

    def __post_init__(self) -> None:
        check_fields(self, "bc")


class BCState(flax.struct.PyTreeNode):
    """P cloned policies: task_id [P], parameters and optimiser state with a leading axis P, each task's obs mean and std [n, O]."""

    step: jax.Array
    task_id: jax.Array
    seed: jax.Array
    params: Params
    opt_state: Any
    obs_mean: jax.Array
    obs_std: jax.Array


def _actor(config: BCConfig, action_dim: int) -> Actor:
    return Actor(config.hidden, action_dim)


def _tx(config: BCConfig) -> optax.GradientTransformation:
    return optax.adam(ops.linear_decay(config.lr, 0.0, config.steps))


def init(config: BCConfig, data: DeviceDataset, task_ids: Sequence[int], seeds: Sequence[int]) -> BCState:
    """Fresh policies for every task and seed, ordered by task, then seed."""
    data.require(tuple(task_ids))
    task_id, seed = jnp.repeat(jnp.asarray(task_ids, jnp.int32), len(seeds)), jnp.tile(jnp.asarray(seeds, jnp.uint32), len(task_ids))
    actor, obs_dim = _actor(config, data.action.shape[-1]), data.obs.shape[-1]
    params = jax.vmap(lambda s: actor.init(jax.random.key(s), jnp.zeros((1, obs_dim)))["params"])(seed)
    frame_task = np.repeat(np.asarray(data.task_id), np.asarray(data.length) + 1)
    obs, num_tasks = np.asarray(data.obs), len(data.longest)
    mean, std = np.zeros((num_tasks, obs_dim), np.float32), np.ones((num_tasks, obs_dim), np.float32)
    for task in set(task_ids):
        mine = obs[frame_task == task]
        mean[task], std[task] = mine.mean(0), np.maximum(mine.std(0), 1e-3)
    return BCState(jnp.zeros((), jnp.int32), task_id, seed, params, jax.vmap(_tx(config).init)(params), jnp.asarray(mean), jnp.asarray(std))


@functools.partial(jax.jit, static_argnames=("num_updates", "config"), donate_argnums=0)
def _chunk(state: BCState, data: DeviceDataset, mask: jax.Array, num_updates: int, config: BCConfig) -> tuple[BCState, Metrics]:
    """`num_updates` gradient steps of every policy in turn; mean (mask * (tanh mu(obs) - a))^2 over them, [P]."""
    actor, tx = _actor(config, data.action.shape[-1]), _tx(config)

    def loss_fn(params: Params, obs: jax.Array, action: jax.Array, task_id: jax.Array) -> jax.Array:
        mean, _ = actor.apply({"params": params}, (obs - state.obs_mean[task_id]) / state.obs_std[task_id])
        return jnp.square((jnp.tanh(mean) - action) * mask[task_id]).sum(-1).mean()

    def learn(policy: tuple[jax.Array, jax.Array, Params, Any]) -> tuple[Params, Any, jax.Array]:
        task_id, seed, params, opt_state = policy
        key = jax.random.fold_in(jax.random.key(seed), task_id)

        def fit(carry: tuple[Params, Any], offset: jax.Array) -> tuple[tuple[Params, Any], jax.Array]:
            params, opt_state = carry
            obs, action = data.sample_starts(jax.random.fold_in(key, state.step + offset), config.batch_size, task_id)
            loss, grads = jax.value_and_grad(loss_fn)(params, obs, action, task_id)
            updates, opt_state = tx.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), loss

        (params, opt_state), losses = jax.lax.scan(fit, (params, opt_state), jnp.arange(num_updates))
        return params, opt_state, losses.mean()

    params, opt_state, loss = jax.lax.map(learn, (state.task_id, state.seed, state.params, state.opt_state))
    return state.replace(step=state.step + num_updates, params=params, opt_state=opt_state), {"loss": loss}


def as_policy(state: BCState, mask: np.ndarray, config: BCConfig) -> Policy:
    """The cloned policies as one `policy(obs [N, O], task_id [N], key)` for N = P * E environments, E in a row for each of P."""

    @jax.jit
    def act(obs: jax.Array) -> jax.Array:
        def one(params: Params, task_id: jax.Array, obs: jax.Array) -> jax.Array:
            normalised = (obs - state.obs_mean[task_id]) / state.obs_std[task_id]
            mean, _ = _actor(config, mask.shape[1]).apply({"params": params}, normalised)
            return jnp.tanh(mean) * jnp.asarray(mask)[task_id]

        grouped = obs.reshape(state.task_id.shape[0], -1, obs.shape[-1])
        return jax.vmap(one)(state.params, state.task_id, grouped).reshape(obs.shape[0], -1)

    return lambda obs, task_id, key: act(jnp.asarray(obs))


def run(
    state: BCState,
    data: DeviceDataset,
    mask: np.ndarray,
    config: BCConfig,
    log: Callable[[BCState, int, Mapping[str, np.ndarray]], None],
    labels: Sequence[str] = (),
) -> BCState:
    """Continue `state` to `config.steps`; `log(state, step, metrics)` follows every `log_every` steps. `mask` [n, A] is the action mask.

    `labels` [P] name the policies in errors.

    Raises:
        FloatingPointError: the loss is not finite; names the step and the policies.
    """
    step = int(state.step)
    while step < config.steps:
        num_updates = min(config.log_every - step % config.log_every, config.steps - step)
        state, device_metrics = _chunk(state, data, jnp.asarray(mask), num_updates, config)
        step += num_updates
        metrics = jax.device_get(device_metrics)
        ops.require_finite(metrics, "bc", f"within {num_updates} steps before step {step}", labels)
        log(state, step, metrics)
    return state
